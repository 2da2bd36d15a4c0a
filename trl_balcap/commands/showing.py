"""What every subcommand shows alike: tables, progress bars, the question before money is spent."""

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm
from rich.table import Table

__all__ = ["confirm", "make_console", "make_progress", "make_table", "say"]

WIDTH = 80


def make_console(*, stderr: bool = False) -> Console:
    """A console of the terminal's width; 80 columns, without colours, where there is none."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


def say(console: Console, line: str) -> None:
    """Prints a line as it stands: no markup is read in it, and the terminal breaks it."""
    console.print(line, markup=False, soft_wrap=True)


def make_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]] = (),
    *,
    left: int = 1,
) -> Table:
    """
    A table that fits 80 columns: heads and cells wrap, nothing is cut off.

    Args:
        title (`str`, *optional*):
            Line above the table.
        columns (`Sequence[str]`):
            Heads.
        rows (`Iterable[Sequence[str]]`, *optional*):
            Cells; more can be added with `add_row`.
        left (`int`, *optional*, defaults to `1`):
            How many of the first columns hold text, set left; the others hold numbers, set right.

    Returns:
        `rich.table.Table`.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.pad_edge = False
    for place, head in enumerate(columns):
        table.add_column(head, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def make_progress(console: Console) -> Progress:
    """Progress bars with what is done and the time left; silent where there is no terminal."""
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
    Whether the user agrees to a cost that was shown. What is free is not asked about.

    Args:
        question (`str`):
            What to agree to.
        usd (`float`, *optional*):
            Dollars; `None` where no price is known.
        yes (`bool`):
            Whether `--yes` was given.
        console (`Console`):
            Where to ask.
        progress (`Progress`, *optional*):
            Bars that rest meanwhile.

    Raises:
        `ValueError`: where nobody can be asked.
    """
    if yes or usd == 0.0:
        return True
    if not sys.stdin.isatty():
        raise ValueError("There is no terminal to confirm the cost on. Agree to it with --yes.")
    if progress is not None:
        progress.stop()
    try:
        agreed = Confirm.ask(question, console=console)
    except EOFError:  # Ctrl-D
        agreed = False
    if agreed and progress is not None:
        progress.start()
    return agreed
