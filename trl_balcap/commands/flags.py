"""One manner for every subcommand's flags: dashes, underscores accepted, errors in one line."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["Parser", "dashed"]


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and one line."""
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. See `{self.prog} --help`.\n")


def dashed(words: Sequence[str]) -> list[str]:
    """
    The command line with `--gpu-memory` for `--gpu_memory`, as TRL's own parser takes both.

    Values stay as they are, and so does everything after a bare `--`, which is for TRL's parser.

    ```python
    >>> dashed(["plan", "--gpu_memory", "a_b", "--out=x_y", "--", "--max_steps"])
    ['plan', '--gpu-memory', 'a_b', '--out=x_y', '--', '--max_steps']

    ```
    """
    end = words.index("--") if "--" in words else len(words)
    return [*map(_dashed, words[:end]), *words[end:]]


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word
