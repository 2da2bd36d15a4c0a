"""The reproduction's rule: what the claims' answers are, given the arms' results."""

import pytest

from benchmarks.reproduction import arms, claims, measure


def results_of(values):
    """arm -> values over seeds, as b-CapScores, sampled and greedy alike."""
    return {
        arm: {
            seed: {"measures": {kind: {"b_capscore": value} for kind in ("sampled", "greedy")}}
            for seed, value in enumerate(scores)
        }
        for arm, scores in values.items()
    }


@pytest.mark.parametrize(
    ("more", "less", "expected"),
    [
        ([0.80, 0.82, 0.81], [0.70, 0.71, 0.70], "yes"),
        ([0.70, 0.71, 0.70], [0.80, 0.82, 0.81], "no"),
        # On average higher by 0.1, and all over the place.
        ([0.9, 0.6, 0.8], [0.6, 0.7, 0.7], "undecided"),
        # The same to within 0.001: an effect of relevant size is excluded.
        ([0.800, 0.801, 0.799], [0.8, 0.8, 0.8], "no"),
        # Plain, but two seeds only.
        ([0.80, 0.82], [0.70, 0.71], "undecided"),
        ([], [0.7, 0.7, 0.7], "undecided"),
    ],
)
def test_answers(more, less, expected):
    results = results_of({"full": more, "vanilla": less})
    part = claims.Part("b_capscore", "full", "vanilla")
    found = claims.difference(part, results, "sampled")
    assert claims.answer(found, claims.margin("b_capscore")) == expected


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
    results = results_of(
        {"base": [0.5, 0.5, 0.51], "no_recall": [0.6, 0.61, 0.6], "full": [0.6, 0.61, 0.6]}
    )
    assert claims.judge(claim, results, "sampled") == "no"  # above the base, not below the full
    results |= results_of({"full": [0.8, 0.81, 0.8]})
    assert claims.judge(claim, results, "sampled") == "yes"


def test_every_claim_speaks_of_arms_and_measures_that_exist():
    for claim in claims.CLAIMS:
        for part in claim.parts + claim.beside:
            assert {part.more, part.less} <= set(arms.ARMS)
            assert part.measure in measure.MEASURES
