"""The reproduction's rule: what the claims' answers are, given the arms' results."""

from typing import Any

import pytest

from benchmarks.reproduction import arms, claims, horizons, measure, paper


def results_of(values, key="b_capscore"):
    """arm -> values over seeds, sampled and greedy alike."""
    return {
        arm: {
            (40, seed): {"measures": {kind: {key: value} for kind in ("sampled", "greedy")}}
            for seed, value in enumerate(scores)
        }
        for arm, scores in values.items()
    }


def test_seeds_are_compared_pair_by_pair():
    """Seeds differ widely, the arms by 0.02 in each of them; a seed that one arm lacks is left
    out."""
    results = results_of({"full": [0.52, 0.72, 0.92], "vanilla": [0.5, 0.7, 0.9, 0.1]})
    found = claims.difference(claims.Part("b_capscore", "full", "vanilla"), results, "greedy")
    assert found.n == 3
    assert found.mean == pytest.approx(0.02)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-9)


def test_a_claim_is_as_good_as_its_weakest_part():
    claim = next(claim for claim in claims.CLAIMS if claim.number == "4")
    results = results_of({"base": [0.5, 0.5, 0.51], "no_recall": [0.6, 0.61, 0.6]})
    assert claims.judge(claim, results, "sampled") == "not run"
    results |= results_of({"full": [0.601, 0.611, 0.6]})  # above the base, not below the full
    assert claims.judge(claim, results, "sampled") == "equivalent"
    results |= results_of({"full": [0.5, 0.9, 0.7]})
    assert claims.judge(claim, results, "sampled") == "undecided"
    results |= results_of({"full": [0.55, 0.56, 0.54]})
    assert claims.judge(claim, results, "sampled") == "no"
    results |= results_of({"full": [0.8, 0.81, 0.8]})
    assert claims.judge(claim, results, "sampled") == "yes"


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ([0.501, 0.499, 0.5], "yes"),
        # 0.01 to 0.03 apart: different, but perhaps by less than the margin.
        ([0.51, 0.52, 0.53], "undecided within 0.045"),
        ([0.60, 0.61, 0.60], "no"),
        ([0.40, 0.41, 0.40], "no"),
    ],
)
def test_a_claimed_tie_is_equivalence(more, answer):
    part = claims.Part("b_capscore", "weights_skewed", "vanilla_skewed", tie=True)
    results = results_of({"weights_skewed": more, "vanilla_skewed": [0.5, 0.5, 0.5]})
    assert claims.said(part, claims.weigh(part, results, "sampled")) == answer


def test_the_bootstrap_uses_the_pairs_that_kept_their_scenes():
    """Two scenes: b-CapScore 0.5 against 0.25 in each, in the three pairs that kept them."""
    results = results_of({"full": [0.5] * 4, "vanilla": [0.25] * 4})
    part = claims.Part("b_capscore", "full", "vanilla")
    assert claims.bootstrap(part, results) is None
    for name, value in (("full", 500), ("vanilla", 250)):
        for seed in range(3):
            kept: Any = {name: [value, value] for name in claims.VIEWS}
            results[name][40, seed]["measures"]["scenes"] = kept
    assert claims.bootstrap(part, results) == (pytest.approx(0.25), pytest.approx(0.25))
    length = claims.Part("length", "full", "vanilla")
    assert claims.bootstrap(length, results) is None


def test_every_claim_and_statement_speaks_of_arms_and_measures_that_exist():
    parts = [part for claim in claims.CLAIMS for part in claim.parts]
    parts += [part for statement in paper.STATEMENTS for part in statement.parts]
    for part in parts:
        assert {part.more, part.less} <= set(arms.ARMS)
        assert part.measure in measure.MEASURES


def run(arm, seed, steps, value, on_the_way=()):
    looks = {step: {"sampled": {"qa": v}, "greedy": {"qa": v}} for step, v in on_the_way}
    measures = {"sampled": {"qa": value}, "greedy": {"qa": value}}
    settings = {"world": "small", "steps": steps}
    found = {"arm": arm, "seed": seed, "settings": settings, "measures": measures}
    return {**found, "on_the_way": {str(step): look for step, look in looks.items()}}


def test_a_longer_run_counts_at_every_step_it_was_measured_at():
    """The base is the partner of every length; a run of 40 steps and one of 120 are no pair."""
    runs = [
        run("base", 0, 40, 0.5),
        run("full", 0, 40, 0.8),
        run("full", 0, 120, 0.9, [(40, 0.7)]),
        run("vanilla", 0, 120, 0.8, [(40, 0.6)]),
    ]
    found = horizons.at_horizons(runs)
    assert {step: set(results) for step, results in found.items()} == {
        40: {"base", "full", "vanilla"},
        120: {"base", "full", "vanilla"},
    }
    gains = claims.differences(claims.Part("qa", "full", "base"), found[40], "sampled")
    assert gains == [pytest.approx(0.3), pytest.approx(0.2)]
    gains = claims.differences(claims.Part("qa", "full", "vanilla"), found[40], "sampled")
    assert gains == [pytest.approx(0.1)]
    # From the base's 0.5: (40 x 0.6 + 80 x 0.8) / 120 and (40 x 0.55 + 80 x 0.7) / 120.
    area = horizons.areas(found)
    assert list(area["full"]) == [(120, 0)]
    ahead = claims.differences(claims.Part("qa", "full", "vanilla"), area, "sampled")
    assert ahead == [pytest.approx(88 / 120 - 78 / 120)]


def test_runs_of_other_settings_are_another_experiment():
    runs = [run("full", seed, 40, 0.8) for seed in range(3)]
    runs[2]["settings"]["learning_rate"] = 1.0
    assert horizons.experiment(runs) == runs[:2]
    assert horizons.experiment(runs, learning_rate=1.0) == runs[2:]
    assert horizons.experiment(runs, world="rich") == []
    assert horizons.experiment([*runs, runs[0]]) == runs[:2]  # read from two files


@pytest.mark.parametrize(
    ("full", "word"),
    [
        ([0.8, 0.81, 0.8], "shows"),
        ([0.4, 0.41, 0.4], "contradicted"),
        ([0.6, 0.61, 0.5], "does not show"),
        ([0.8], "not run"),
    ],
)
def test_answers_to_a_statement(full, word):
    statement = paper.Statement("here", "It is so.", (claims.Part("qa", "full", "vanilla"),))
    results = results_of({"full": full, "vanilla": [0.6, 0.6, 0.61]}, "qa")
    answer, why = paper.answered(statement, {40: results})
    assert answer == word
    assert ("(3 at 40)" in why) == (word != "not run")


def test_proposition_1_and_figure_2_hold_of_the_advantages():
    for where in ("Proposition 1", "Figure 2"):
        (statement,) = (one for one in paper.STATEMENTS if one.where == where)
        assert paper.answered(statement, {})[0] == "shows"


def test_agreement_with_the_arena_is_over_the_arms_means():
    """Five arms whose b-CapScores and arenas rank alike, but for two neighbours."""
    results = results_of({name: [0.0, 0.2] for name in list(arms.ARMS)[:5]})
    for place, runs in enumerate(results.values()):
        for one in runs.values():
            one["measures"]["sampled"] = {"b_capscore": place / 10, "arena": (1, 0, 2, 3, 4)[place]}
    found = paper.arena_agreement(results)
    assert found is not None
    assert found.spearman.mean == pytest.approx(0.9)
    assert paper.arena_agreement(dict(list(results.items())[:4])) is None
