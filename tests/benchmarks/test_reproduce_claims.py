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


def test_all_runs_count_where_partners_are_missing():
    """One pair, but three runs of either arm, whose means are 0.9 and 0.7. Both variances are 0.01:
    Welch's interval is +-0.1 x sqrt(2 / 3) x 2.776. The base's run counts once for both lengths."""
    results = results_of({"full": [0.8, 0.9, 1.0], "vanilla": [0.6, 0.7, 0.8]})
    results["vanilla"] = {(40, seed + 2): run for (_, seed), run in results["vanilla"].items()}
    part = claims.Part("b_capscore", "full", "vanilla")
    assert claims.difference(part, results, "sampled").n == 1
    found = claims.all_runs(part, results, "sampled")
    assert found == (
        pytest.approx(0.2),
        pytest.approx(-0.027, abs=1e-3),
        pytest.approx(0.427, abs=1e-3),
        3,
    )
    untrained: Any = results_of({"base": [0.5, 0.4]})["base"]
    results["base"] = untrained | {(120, 0): untrained[40, 0]}
    part = claims.Part("b_capscore", "full", "base")
    assert claims.all_runs(part, results, "sampled").mean == pytest.approx(0.9 - 0.45)


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
    """Two scenes, three pairs. A caption with rewards 0.2, 1 and 1 has a b-CapScore of
    3 / (5 + 1 + 1), whichever of the three is 0.2: it is a mean over captions, and not that of the
    means 0.6, 0.6 and 1."""
    results = results_of({"full": [0.5] * 4, "vanilla": [0.25] * 4})
    part = claims.Part("b_capscore", "full", "vanilla")
    assert claims.bootstrap(part, results) is None
    for name, scenes in (("full", [(200, 1000), (1000, 200)]), ("vanilla", [(250, 250)] * 2)):
        for seed in range(3):
            kept: Any = dict(zip(claims.VIEWS, [*scenes, scenes[0][:1] * 2], strict=True))
            kept["linguistic"] = [1000, 1000] if name == "full" else [250, 250]
            results[name][40, seed]["measures"]["scenes"] = kept
    both = pytest.approx(3 / 7 - 0.25)
    assert claims.bootstrap(part, results) == (both, both)
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
        ([0.8, 0.81, 0.8], "**shows** (40)"),
        ([0.4, 0.41, 0.4], "**contradicted** (40)"),
        ([0.6, 0.61, 0.5], "**does not show** (40)"),
        ([0.8], "not run"),
    ],
)
def test_answers_to_a_statement(full, word):
    statement = paper.Statement("here", "It is so.", (claims.Part("qa", "full", "vanilla"),))
    results = results_of({"full": full, "vanilla": [0.6, 0.6, 0.61]}, "qa")
    answer, why = paper.answered(statement, {40: results})
    assert answer == word
    assert ("(3 at 40)" in why) == (word != "not run")


def test_a_statement_is_answered_at_every_step_that_all_its_parts_have_reached():
    """QA is shown at 40 and undecided at 120; at 300 are two pairs only, so nothing is said."""
    parts = tuple(claims.Part(key, "full", "vanilla") for key in ("qa", "recall"))
    statement = paper.Statement("here", "It is so.", parts)
    steps: Any = {}
    for step, qa in ((40, [0.8, 0.81, 0.8]), (120, [0.6, 0.7, 0.5]), (300, [0.8, 0.81, 0.8])):
        steps[step] = results_of({"full": qa, "vanilla": [0.6, 0.6, 0.61]}, "qa")
        for arm, value in (("full", 0.5), ("vanilla", 0.4)):
            for seed, one in enumerate(steps[step][arm].values()):
                one["measures"]["sampled"]["recall"] = value + seed / 1000 * (arm == "full")
    steps[300]["vanilla"] = dict(list(steps[300]["vanilla"].items())[:2])
    answer, why = paper.answered(statement, steps)
    assert answer == "**shows** (40), **does not show** (120)"
    assert "recall, full - vanilla: +0.101 [+0.099, +0.103] (3 at 120)" in why


def test_proposition_1_and_figure_2_hold_of_the_advantages():
    for where in ("Proposition 1", "Figure 2"):
        (statement,) = (one for one in paper.STATEMENTS if one.where == where)
        assert paper.answered(statement, {})[0] == "**shows**"


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
