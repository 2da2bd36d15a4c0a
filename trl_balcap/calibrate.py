"""How far a judge can be trusted: its spread when asked again, and its agreement with another judge."""

import math
from collections.abc import Sequence

__all__ = ["retest_spread"]


def retest_spread(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    r"""
    Standard deviation of a judge's score around its own mean, from two scores of the same captions.

    $$\sigma = \sqrt{\tfrac{1}{2n} \sum_i (a_i - b_i)^2}$$

    The difference of two scores has twice the variance of one. This is what `std_floor` of
    [`BalCapConfig`] takes: a spread within a group that is no larger says nothing about the captions.

    Args:
        first, second (`Sequence[float or None]`):
            Scores of the same captions in the same order, `None` where the judge failed.

    Returns:
        `float` or `None`: `None` where no caption was scored twice.

    Raises:
        ValueError: If the two differ in length.

    Example: two captions; the judge gave one of them 0.4 and then 0.6.

    ```python
    >>> round(retest_spread([0.4, 0.9, None], [0.6, 0.9, 0.1]), 4)
    0.1

    ```
    """
    differences = [
        a - b for a, b in zip(first, second, strict=True) if a is not None and b is not None
    ]
    if not differences:
        return None
    return math.sqrt(math.fsum(d * d for d in differences) / (2 * len(differences)))
