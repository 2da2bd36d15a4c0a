"""
The prompts of the published benchmarks: ours, or the original ones.

The original prompts have no licence and cannot be redistributed, so they are read at run time from
the user's clone of the benchmark's repository, without running any of its code. Scores with our
prompts are not comparable with published ones.
"""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter, Template
from typing import Literal, NamedTuple

__all__ = ["Place", "PromptFiles", "Prompts", "official_prompts", "own_prompts", "prompts_of"]


class Place(NamedTuple):
    """Where a repository assigns a prompt, and the prompt's fields."""

    variable: str
    fields: tuple[str, ...] = ()
    function: str | None = None  # None: at top level


@dataclass(frozen=True)
class PromptFiles:
    """
    The prompts of one benchmark: ours are `prompts/<metric>_<part>.txt`.

    Args:
        metric (`str`):
            Name of the metric.
        repository (`str`):
            Repository of the original prompts.
        file (`str`):
            The file with them.
        places (`Mapping[str, Place]`):
            Where each part is assigned in that file.
    """

    metric: str
    repository: str
    file: str
    places: Mapping[str, Place]


@dataclass(frozen=True)
class Prompts:
    """
    Prompts of one benchmark.

    Args:
        origin (`str`):
            `"trl-balcap"` for ours, `"official"` for the repository's.
        texts (`Mapping[str, str]`):
            The prompts by part. Ours are `string.Template`s, official ones `str.format` templates.
        source (`str`):
            Where they were read from.
    """

    origin: Literal["trl-balcap", "official"]
    texts: Mapping[str, str]
    source: str

    def fill(self, part: str, **values: str) -> str:
        """
        Fill in a prompt in one pass, so that nothing in a value is ever read as a placeholder.

        Raises:
            `KeyError`: if the prompt has a placeholder without a value.
        """
        if self.origin == "official":
            return self.texts[part].format(**values)
        return Template(self.texts[part]).substitute(values)

    def quote(self, text: str) -> str:
        """Free text as the prompt needs it: a JSON string in ours, plain text in the official
        ones."""
        return text if self.origin == "official" else json.dumps(text, ensure_ascii=False)

    @property
    def sha256(self) -> str:
        """Hash over all texts, to tell results of different prompts apart."""
        digest = hashlib.sha256()
        for part in sorted(self.texts):
            digest.update(f"{part}\0{self.texts[part]}\0".encode())
        return digest.hexdigest()

    @property
    def label(self) -> str:
        """Which prompts they are, in words."""
        official = self.origin == "official"
        return f"official, from {self.source}" if official else "trl-balcap's own"


def prompts_of(prompts: PromptFiles, checkouts: Sequence[str | Path] = ()) -> Prompts:
    """The official prompts if one of the checkouts has them, else ours."""
    for checkout in checkouts:
        if (Path(checkout) / prompts.file).is_file():
            return official_prompts(prompts, checkout)
    return own_prompts(prompts)


def own_prompts(prompts: PromptFiles) -> Prompts:
    """
    Our prompts for a benchmark.

    Example:

    ```python
    >>> from trl_balcap.evals.metrics.captionqa import PROMPTS
    >>> "Cannot answer" in own_prompts(PROMPTS).fill("system")
    True

    ```
    """
    folder = files("trl_balcap.evals").joinpath("prompts")
    texts = {
        part: folder.joinpath(f"{prompts.metric}_{part}.txt").read_text(encoding="utf-8").strip()
        for part in prompts.places
    }
    return Prompts("trl-balcap", texts, "trl_balcap.evals")


def official_prompts(prompts: PromptFiles, checkout: str | Path) -> Prompts:
    """
    Read a benchmark's official prompts from the source code in a clone of its repository.

    Args:
        prompts ([`PromptFiles`]):
            Which prompts, and where they are.
        checkout (`str` or `Path`):
            Root folder of the clone.

    Returns:
        [`Prompts`]

    Raises:
        `FileNotFoundError`: if the clone does not have the file.
        `ValueError`: if the file does not have the prompts, or they have unexpected placeholders.
    """
    path = Path(checkout) / prompts.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{checkout} has no {prompts.file}, so it is not a clone of {prompts.repository}, "
            f"which has the official prompts of {prompts.metric}."
        )
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    texts = {}
    for part, place in prompts.places.items():
        template = _assigned_text(tree, place)
        if template is None:
            raise ValueError(
                f"{path} assigns no text with {', '.join(place.fields) or 'no placeholder'} to "
                f"{place.variable!r}{f' in {place.function}' if place.function else ''}. Check out "
                f"a revision of {prompts.repository} that does, or drop --official-prompts."
            )
        texts[part] = template
    return Prompts("official", texts, str(path))


def _assigned_text(tree: ast.Module, place: Place) -> str | None:
    """The first string assigned there with exactly its fields, as a `str.format` template."""
    function, variable, fields = place.function, place.variable, place.fields
    scope: ast.AST = tree
    if function is not None:
        scope = next(
            (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function),
            ast.Module(body=[], type_ignores=[]),
        )
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == variable for target in node.targets
        ):
            template = _template(node.value, is_format=bool(fields))
            if template is not None and _placeholders(template) == set(fields):
                return template
    return None


def _template(value: ast.expr, *, is_format: bool) -> str | None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        # A string that the script does not format has plain braces.
        return value.value if is_format else _escape(value.value)
    if not isinstance(value, ast.JoinedStr):
        return None
    pieces = []
    for piece in value.values:
        if isinstance(piece, ast.Constant):
            pieces.append(_escape(str(piece.value)))
        elif isinstance(piece, ast.FormattedValue) and isinstance(piece.value, ast.Name):
            pieces.append("{" + piece.value.id + "}")
        else:
            return None
    return "".join(pieces)


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _placeholders(template: str) -> set[str] | None:
    try:
        return {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError:  # not a format string: a lone brace
        return None
