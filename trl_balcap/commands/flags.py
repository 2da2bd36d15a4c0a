"""How every subcommand parses its flags: dashes or underscores, and one-line errors."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["Parser", "add_photo_flags", "dashed"]


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a one-line message."""
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. See `{self.prog} --help`.\n")


def add_photo_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that have a model write something about each photograph."""
    parser.add_argument(
        "--image-pixels",
        type=int,
        default=512 * 28 * 28,
        help="larger images are scaled down, as for the policy (default: 401408)",
    )
    parser.add_argument("--image-folder", help="folder that listed image paths are relative to")
    parser.add_argument("--yes", action="store_true", help="skip the cost confirmation")


def dashed(words: Sequence[str]) -> list[str]:
    """
    Replace underscores with dashes in flag names, since TRL's own parser accepts both.

    Values are left unchanged, as is everything after a bare `--`, which goes to TRL's parser.

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
