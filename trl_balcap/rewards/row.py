"""[`Row`], a completion with everything it is judged by, and [`RowError`], why it cannot be."""

from dataclasses import dataclass, field
from typing import Any

from trl_balcap.data.completions import is_empty

__all__ = ["Row", "RowError"]


class RowError(Exception):
    """A row that cannot be scored through its own fault: its reward is `None`.

    Args:
        reason (`str`):
            One word to count it under, such as `"no_image"`.
        message (`str`):
            What is wrong, for humans.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass
class Row:
    """One completion with everything it is judged by.

    Args:
        caption (`str`):
            The completion's text.
        image (*optional*):
            Its image, or list of images.
        reference (*optional*):
            Its reference caption.
        columns (`dict[str, Any]`):
            Its values in the other columns that the reward needs.
        seen (`dict[str, Any]`):
            Filled by [`JudgeReward.score`] with the judge's verdicts, for logs and the report.
    """

    caption: str
    image: Any = None
    reference: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    judged: bool = False  # true once it has a score, or a reason for having none

    @property
    def has_reference(self) -> bool:
        """Whether `reference` is a string with visible text."""
        return isinstance(self.reference, str) and not is_empty(self.reference)

    def shows_the_same(self, other: "Row") -> bool:
        """Whether both have the same image (by pixels) and reference, as rollouts of a prompt."""
        same = self.image is other.image or self.image == other.image
        return same and self.reference == other.reference

    def is_like(self, other: "Row") -> bool:
        """Whether both need the same verdicts."""
        return (
            self.caption == other.caption
            and self.image is other.image
            and self.reference == other.reference
            and self.columns == other.columns
        )

    def check(self, needs: tuple[str, ...]) -> None:
        """
        Raises:
            [`RowError`]: if the row lacks a required column.
        """
        nothing = self.image is None or (isinstance(self.image, list) and not self.image)
        if "image" in needs and nothing:
            raise RowError("no_image", "the row has no image")
        if "reference" in needs and not self.has_reference:
            raise RowError("no_reference", f"the row's reference is {self.reference!r}")
        for name in needs:
            if name not in ("image", "reference") and not self.columns[name]:
                raise RowError(f"no_{name}", f"the row's {name} is {self.columns[name]!r}")
