"""Output shared by all subcommands: tables, progress bars, and the cost confirmation."""

import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # slow to import, and `--help` needs none
    from trl_balcap.judge import Judge

__all__ = ["Consent", "confirm", "make_console", "make_progress", "make_table", "say", "spent"]


WIDE = 10_000  # tables are then as wide as their cells


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; without a terminal, no colours and one line per row."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


def say(console: Console, line: str) -> None:
    """Print a line verbatim, without markup. A terminal gets it wrapped between words; a path or
    URL that is longer than a line stays in one piece, so that it can be copied."""
    readable = line.encode(errors="backslashreplace").decode()  # names of files may not be UTF-8
    if console.is_terminal:
        lines = (_wrapped(part, console.width) for part in readable.split("\n"))
        readable = "\n".join(lines)
    console.print(readable, markup=False, soft_wrap=True)


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def make_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    *,
    left: int = 1,
) -> Table:
    """
    A table that fits into the terminal: headers and cells wrap, nothing is cut off.

    Args:
        title (`str`, *optional*):
            Line above the table.
        columns (`Sequence[str]`):
            Column headers.
        rows (`Iterable[Sequence[str]]`, *optional*):
            Cells. More rows can be added with `add_row`.
        left (`int`, *optional*, defaults to `1`):
            Number of leading text columns, aligned left. The others hold numbers, aligned right.

    Returns:
        `rich.table.Table`.
    """
    table = _Titled(box=box.SIMPLE_HEAD, pad_edge=False)
    table.above = title
    for place, head in enumerate(columns):
        table.add_column(head, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


class _Titled(Table):
    """A table with a line above it that may be longer; rich folds a title to the table's width."""

    above: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.above is not None:
            yield Text(self.above, style="bold")
        yield from super().__rich_console__(console, options)


def make_progress(console: Console) -> Progress:
    """Progress bars with counts and the time left; silent without a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def confirm(
    question: str,
    *,
    usd: float | None,
    yes: bool,
    console: Console,
    progress: Progress | None = None,
) -> bool:
    """
    Ask the user to accept the cost shown. If it is zero, nothing is asked.

    Args:
        question (`str`):
            Question to ask.
        usd (`float`, *optional*):
            Cost in dollars; `None` if the price is unknown.
        yes (`bool`):
            Whether `--yes` was given.
        console (`Console`):
            Console to ask on.
        progress (`Progress`, *optional*):
            Progress bars to pause while asking.

    Raises:
        `ValueError`: if there is no terminal to ask on.
    """
    if yes or usd == 0.0:
        return True
    if not sys.stdin.isatty():
        raise ValueError(
            "Cannot ask to confirm the cost without a terminal. Pass --yes to accept it."
        )
    if progress is not None:
        progress.stop()
    try:
        agreed = Confirm.ask(question, console=console)
    except EOFError:  # Ctrl-D
        agreed = False
    if agreed and progress is not None:
        progress.start()
    return agreed


class Consent:
    """
    Shows what is left to do and what it costs, and asks once: `agree` of the work that resumes.

    Args:
        bar (`TaskID`):
            Bar of `progress`, moved to what is already done.
        describe (`Callable`):
            From the number of rows left to what they take, in words, and its cost in dollars.
        question, yes, console, progress:
            As in [`confirm`].

    Attributes:
        declined (`bool`): Whether the user said no.
    """

    def __init__(
        self,
        question: str,
        bar: TaskID,
        describe: Callable[[int], tuple[str, float | None]],
        *,
        yes: bool,
        console: Console,
        progress: Progress,
    ):
        self.question, self.bar, self.describe = question, bar, describe
        self.yes, self.console, self.progress = yes, console, progress
        self.declined = False

    def __call__(self, total: int, done: int) -> bool:
        self.progress.update(self.bar, completed=done)
        takes, usd = self.describe(total - done)
        price = "price unknown" if usd is None else f"about ${usd:.2f}"
        say(
            self.console,
            f"{total} images, {done} already done: {takes}, {price} (estimate, without retries).",
        )
        self.declined = not confirm(
            self.question, usd=usd, yes=self.yes, console=self.console, progress=self.progress
        )
        return not self.declined


def spent(judges: "Iterable[Judge]") -> str:
    """What these judges were paid, as the end of a sentence; empty if a price is unknown."""
    different = {id(judge): judge for judge in judges}.values()
    if any(judge.stats.unpriced_calls for judge in different):
        return ""
    return f" ${sum(judge.stats.usd for judge in different):.2f} spent."
