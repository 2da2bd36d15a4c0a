"""How well the sentences of a text are ordered."""

import itertools
from collections.abc import Sequence

from trl_balcap.scenes.claims import (
    BackgroundClaim,
    Claim,
    CountClaim,
    KindCountClaim,
    ThingClaim,
)
from trl_balcap.scenes.prose import READING_ORDERS
from trl_balcap.scenes.world import COLUMNS

__all__ = ["share_in_order"]


def share_in_order(claims: Sequence[Claim | None]) -> float:
    """
    Share of the steps between consecutive sentences that are in order.

    In a text about a small scene, these are steps to a place that is not earlier in reading order,
    from a count that comes first, or to a count that comes last. In a text about a rich one, they
    are steps to a place that is not earlier than the last place named, by rows or by columns,
    whichever suits the text better; steps within an overview that comes first or last, and steps
    to what is said about several things. A single sentence is in order; a step from or to text
    outside the grammar is not.

    Args:
        claims (`Sequence`): What each sentence claims, without commentary.

    Example: by rows, one of two steps is in order; by columns, both are.

    ```python
    >>> from trl_balcap.scenes.parsing import parse_caption
    >>> text = "The top far left shows a star. The bottom far left shows a star."
    >>> share_in_order(parse_caption(text + " The top far right shows a star."))
    1.0

    ```
    """
    if len(claims) < 2:
        return float(None not in claims)
    if all(claim is None or _is_small(claim) for claim in claims):
        return sum(_small_steps(claims)) / (len(claims) - 1)
    last = max((at for at, claim in enumerate(claims) if not _is_overview(claim)), default=-1)
    first = min((at for at, claim in enumerate(claims) if not _is_overview(claim)), default=-1)
    best = 0
    for order in READING_ORDERS:
        in_order, place = 0, None
        for at, claim in enumerate(claims):
            known = claim is not None and (at == 0 or claims[at - 1] is not None)
            if isinstance(claim, ThingClaim) and not _is_small(claim):
                here = order(claim)
                fits = place is None or place <= here
                place = here
            else:
                fits = not _is_overview(claim) or at < first or at > last
            in_order += at > 0 and known and fits
        best = max(best, in_order)
    return best / (len(claims) - 1)


def _is_small(claim: Claim) -> bool:
    return isinstance(claim, CountClaim) or (
        isinstance(claim, ThingClaim) and claim.column in COLUMNS
    )


def _is_overview(claim: Claim | None) -> bool:
    return isinstance(claim, BackgroundClaim | CountClaim | KindCountClaim)


def _small_steps(claims: Sequence[Claim | None]) -> list[bool]:
    last = len(claims) - 2
    steps = []
    for step, (one, other) in enumerate(itertools.pairwise(claims)):
        if isinstance(one, ThingClaim) and isinstance(other, ThingClaim):
            steps.append(one.cell <= other.cell)
        elif isinstance(one, CountClaim) and isinstance(other, ThingClaim):
            steps.append(step == 0)
        else:
            steps.append(
                isinstance(one, ThingClaim) and isinstance(other, CountClaim) and step == last
            )
    return steps
