"""What `mode="strict"` corrects, each beside the official number."""

import json
import random

import pytest

from trl_balcap.evals import arena
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics.caparena import CapArenaAuto
from trl_balcap.evals.rules import caparena, captionqa, dcscore


def verified(**facts: int) -> list[dict]:
    return [{"fact": fact, "verification": right} for fact, right in facts.items()]


def said(*facts: str, irrelevant: tuple[str, ...] = ()) -> list[dict]:
    return [{"fact": f, "relevance": 1} for f in facts] + [
        {"fact": f, "relevance": 0} for f in irrelevant
    ]


def both_modes(facts, oracle, verification, mapping):
    return [
        dcscore.fact_scores(facts, oracle, verification, mapping, mode)
        for mode in ("official", "strict")
    ]


def test_a_wrong_fact_takes_no_credit_from_a_right_one():
    # Two annotated facts; a is right and matches 0, b is wrong and matches 0 too.
    official, strict = both_modes(said("a", "b"), [{}, {}], verified(a=1, b=0), {"a": 0, "b": 0})
    assert (official.recall, strict.recall) == (0.25, 0.5)
    assert official.precision == strict.precision == 0.5


def test_an_irrelevant_fact_does_not_dilute_the_relevant_half():
    official, strict = both_modes(
        said("a", irrelevant=("b",)), [{}, {}], verified(a=1, b=1), {"a": 0, "b": 0}
    )
    assert (official.recall_relevant, strict.recall_relevant) == (0.25, 0.5)


def test_two_right_facts_of_one_annotated_fact_count_once():
    _, strict = both_modes(said("a", "b"), [{}, {}], verified(a=1, b=1), {"a": 0, "b": 0})
    assert strict.recall == 0.5


def test_strict_scores_never_leave_the_unit_interval():
    rng = random.Random(0)
    for _ in range(300):
        names = [f"f{i}" for i in range(rng.randint(1, 6))]
        n_oracle = rng.randint(1, 4)
        facts = [{"fact": name, "relevance": rng.randint(0, 1)} for name in names]
        mapping = {name: rng.choice([None, *range(n_oracle)]) for name in names}
        verification = [{"fact": n, "verification": rng.randint(0, 1)} for n in names]
        scores = dcscore.fact_scores(facts, [{}] * n_oracle, verification, mapping, "strict")
        assert 0 <= scores.recall <= 1
        assert 0 <= scores.recall_relevant <= 1
        assert 0 <= scores.score <= 1


def test_a_caption_without_a_relevant_fact_scores_zero_there_instead_of_vanishing():
    facts = said(irrelevant=("a",))
    with pytest.raises(dcscore.InvalidReplyError, match="Nothing to divide by"):
        dcscore.fact_scores(facts, [{}], verified(a=1), {"a": 0})
    strict = dcscore.fact_scores(facts, [{}], verified(a=1), {"a": 0}, "strict")
    assert (strict.f1_score_relevant, strict.f1_score) == (0.0, pytest.approx(1.0))


def test_a_fact_that_both_judges_forget_is_not_forgotten():
    facts, verification, mapping = said("a", "b"), verified(a=1), {"a": 0}
    assert dcscore.fact_scores(facts, [{}], verification, mapping).precision == 1.0
    with pytest.raises(dcscore.InvalidReplyError, match="1 were judged, 2 were asked about"):
        dcscore.fact_scores(facts, [{}], verification, mapping, "strict")


@pytest.mark.parametrize(
    ("matched", "read"),
    [
        pytest.param("1", 1, id="digits_are_a_number"),
        pytest.param("none", None, id="none_in_any_case"),
        pytest.param(None, None, id="null"),
        pytest.param(0, 0, id="number"),
    ],
)
def test_strict_reads_ids(matched, read):
    reply = f"```json\n{json.dumps([{'fact': 'a', 'matched_oracle_id': matched}])}\n```"
    assert dcscore.read_mapping(reply, n_oracle=2, mode="strict") == {"a": read}
    assert dcscore.read_mapping(reply, n_oracle=2) == {"a": matched}


@pytest.mark.parametrize("matched", [2, -1, True, "first", 0.5])
def test_strict_refuses_ids_that_are_none(matched):
    reply = f"[{{'fact': 'a', 'matched_oracle_id': {matched!r}}}]"
    with pytest.raises(dcscore.InvalidReplyError, match="is not an id of the 2 annotated facts"):
        dcscore.read_mapping(reply, n_oracle=2, mode="strict")


def test_strict_refuses_a_fact_verified_both_ways_and_merges_equal_ones():
    twice = "[{'fact': 'a', 'verification': 1}, {'fact': 'a', 'verification': %d}]"
    assert len(dcscore.read_verification(twice % 1, "strict")) == 1
    assert len(dcscore.read_verification(twice % 0)) == 2
    with pytest.raises(dcscore.InvalidReplyError, match="both right and wrong"):
        dcscore.read_verification(twice % 0, "strict")
    with pytest.raises(dcscore.InvalidReplyError, match="must say 0 or 1"):
        dcscore.read_verification("[{'fact': 'a', 'verification': '1'}]", "strict")


def test_strict_takes_a_fact_without_relevance_as_relevant():
    reply = "[{'fact': 'a'}, {'fact': 'a', 'relevance': 0}]"
    with pytest.raises(dcscore.InvalidReplyError, match="without 'relevance'"):
        dcscore.read_extraction(reply)
    assert dcscore.read_extraction(reply, "strict") == [{"fact": "a", "relevance": 1}]


# ---- CaptionQA ---------------------------------------------------------------------------------

QUESTIONS = [
    {"question": "Which colour?", "choices": ["red", "blue"], "answer": "blue"},
    {"question": "Which shape?", "choices": ["star", "square", "circle"], "answer": "star"},
]
DATASET = [{"id": "nat_1", "questions": QUESTIONS}, {"id": "nat_2", "questions": QUESTIONS}]


def permutations(captions, mode):
    questions, _ = captionqa.prepare_questions(DATASET, captions, mode=mode)
    return {(q.image_id, q.index): q.permutation for q in questions}


def test_a_missing_caption_shifts_the_official_shuffle_alone():
    everything, one = {"nat_1": "x", "nat_2": "y"}, {"nat_2": "y"}
    for mode, shifts in (("official", True), ("lmms-eval", False), ("strict", False)):
        whole, part = permutations(everything, mode), permutations(one, mode)
        assert len(part) == 2
        assert any(part[key] != whole[key] for key in part) is shifts, mode


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        pytest.param("B", "B", "B", id="letter"),
        pytest.param("B\nbecause", None, None, id="official_reads_the_second_line"),
        pytest.param("It's B", None, None, id="apostrophe"),
        pytest.param("It is a cat", "A", None, id="article_is_no_answer"),
        pytest.param("B. Blue", "B", "B", id="letter_and_text"),
        pytest.param("A or B", "A", None, id="two_answers_are_none"),
        pytest.param("**b**", "B", "B", id="bold"),
        pytest.param("2", "B", None, id="number"),
        pytest.param("", None, None, id="empty"),
    ],
)
def test_letters(reply, official, strict):
    assert captionqa.extract_letter(reply, 3) == official
    assert captionqa.strict_letter(reply, 3) == strict


def test_a_native_option_that_says_cannot_answer_earns_credit_officially_alone():
    choices = ("cat", captionqa.CANNOT_ANSWER)
    options = (*choices, captionqa.CANNOT_ANSWER)
    question = captionqa.ChoiceQuestion("i", 0, "What?", choices, 0, options, (0, 1, 2), "")
    assert captionqa.score_reply(question, "B").score == 0.55
    assert captionqa.score_reply(question, "B", "strict").score == 0.0
    assert captionqa.score_reply(question, "C", "strict").score == pytest.approx(0.55)


def test_only_the_offered_answers_make_a_question_yes_or_no():
    cases = [("Where?", ["eyes", "nose"]), ("Is it red or blue?", ["red", "blue"])]
    for question, choices in cases:
        assert captionqa.is_yesno_question(question, choices)
        assert captionqa.options_of(question, choices, "strict")[-1] == captionqa.CANNOT_ANSWER
    assert captionqa.options_of("Is it?", ["Yes, it is", "No"], "strict") == ["Yes, it is", "No"]


def test_more_options_than_letters_are_left_out_and_counted():
    row = {"id": "i", "question": "q", "choices": [str(i) for i in range(26)], "answer": "25"}
    questions, skipped = captionqa.prepare_questions([row], {"i": "x"})
    assert (questions, skipped["more than 26 options"]) == ([], 1)


# ---- CapArena ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "official", "strict"),
    [
        ("Caption 1 is better", 1, 1),
        ("Caption 2 is better.", 2, 2),
        ("<Tie>", None, 0),
        ("**caption 1 is better**", None, 1),
        ("Caption 1 is better because it is longer", None, None),
        ("Captions 1 and 2 are equal", None, None),
    ],
)
def test_verdicts(words, official, strict):
    assert caparena.verdict_of(words) == official
    assert caparena.verdict_of(words, "strict") == strict


def test_strict_percent_rests_on_the_battles_that_were_judged():
    outcomes = [("GPT-4o-0806", 1), ("GPT-4o-0806", None)]
    outcomes += [("MiniCPM-V2.6-8B", -1), ("MiniCPM-V2.6-8B", 0)]

    def scores(mode):
        rows = [
            {
                "caption": "a",
                "ref_model": baseline,
                "score": outcome,
                "reason": None if outcome is not None else "no verdict",
                "mode": mode,
            }
            for baseline, outcome in outcomes
        ]
        weights = resampling_weights(len(rows), rounds=1)
        found = {s.name: estimate(s, weights).value for s in CapArenaAuto.statistics(rows)}
        return [found[f"Score_{name}"] for name in ("gpt", "cog", "cpm", "Avg")]

    assert scores("official") == [0.5, 0.0, -0.5, 0.0]
    assert scores("strict") == [100.0, None, -50.0, 25.0]


# ---- human arena -------------------------------------------------------------------------------


def test_elo_gives_what_it_takes():
    rng = random.Random(0)
    pairs = [rng.sample("ABCDE", 2) for _ in range(200)]
    fights = [(first, second, rng.choice([0.0, 0.5, 1.0])) for first, second in pairs]
    ratings = arena.elo_ratings(fights)
    assert sum(ratings.values()) == pytest.approx(1000 * len(ratings))


def test_a_metric_that_reverses_people_correlates_with_minus_one():
    models = [model for model in arena.HUMAN_RANKING if model != "human"]
    found = arena.model_agreement(models[::-1])
    assert (found.spearman, found.kendall) == (pytest.approx(-1), pytest.approx(-1))
