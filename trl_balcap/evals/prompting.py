"""
What the judges of the published benchmarks are asked: in our words, or in the original ones.

The original prompts may not be redistributed (no licence), so they are read at run time from the user's own checkout
of the benchmark's repository, without running any of it. Scores under our words do not compare with published ones.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter, Template
from typing import Literal

__all__ = ["Prompts", "official_prompts", "own_prompts"]

PARTS = {
    "dcscore": ("extract", "match", "verify"),
    "captionqa": ("system",),
    "caparena": ("system", "battle"),
}
"""Prompts of each benchmark."""

# The file of each repository, and for each part the function (None: top level) and the name assigned there.
OFFICIAL = {
    "dcscore": (
        "eval/evaluation_decapbench.py",
        {
            "extract": (None, "extract_prompt"),
            "match": (None, "match_prompt"),
            "verify": (None, "verify_prompt"),
        },
    ),
    "captionqa": ("qa.py", {"system": ("evaluate_qa_with_captions", "system_prompt")}),
    "caparena": (
        "vlm_as_a_judge.py",
        {
            "system": (None, "system_prompt_with_ref"),
            "battle": ("mllm_judge_pairs", "compare_prompt"),
        },
    ),
}
REPOSITORIES = {
    "dcscore": "MAGAer13/DeCapBench",
    "captionqa": "bronyayang/CaptionQA",
    "caparena": "njucckevin/CapArena",
}
FIELDS = {
    "extract": ("caption",),
    "match": ("predicted_atomic_facts", "oracle_atomic_facts"),
    "verify": ("reference_caption", "atomic_facts"),
    "battle": ("caption_1", "caption_2", "caption_ref"),
    "system": (),
}
"""What each prompt is filled with; the official names."""


@dataclass(frozen=True)
class Prompts:
    """
    Prompts of one benchmark.

    Args:
        origin (`str`):
            `"trl-balcap"` for our words, `"official"` for the repository's.
        texts (`Mapping[str, str]`):
            The prompts by part. Ours are `string.Template`s, official ones `str.format` templates.
        source (`str`):
            Where they come from.
    """

    origin: Literal["trl-balcap", "official"]
    texts: Mapping[str, str]
    source: str

    def fill(self, part: str, **values: str) -> str:
        """
        The prompt with its values put in, in one pass: nothing in a value is ever read as a placeholder.

        Raises:
            KeyError: If the prompt has a placeholder without a value.
        """
        if self.origin == "official":
            return self.texts[part].format(**values)
        return Template(self.texts[part]).substitute(values)

    def quote(self, text: str) -> str:
        """Free text as the prompt wants it: a JSON string in ours, the text itself in the official ones."""
        return text if self.origin == "official" else json.dumps(text, ensure_ascii=False)

    @property
    def sha256(self) -> str:
        """Hash over all texts, to tell results of different prompts apart."""
        digest = hashlib.sha256()
        for part in sorted(self.texts):
            digest.update(f"{part}\0{self.texts[part]}\0".encode())
        return digest.hexdigest()


def own_prompts(metric: str) -> Prompts:
    """
    Our prompts of a benchmark.

    Example:

    ```python
    >>> "Cannot answer" in own_prompts("captionqa").fill("system")
    True

    ```
    """
    folder = files("trl_balcap.evals").joinpath("prompts")
    texts = {
        part: folder.joinpath(f"{metric}_{part}.txt").read_text(encoding="utf-8").strip()
        for part in PARTS[metric]
    }
    return Prompts("trl-balcap", texts, "trl_balcap.evals")


def official_prompts(metric: str, checkout: str | Path) -> Prompts:
    """
    A benchmark's own prompts, read from the source code in a checkout of its repository.

    Args:
        metric (`str`):
            `"dcscore"`, `"captionqa"` or `"caparena"`.
        checkout (`str` or `Path`):
            Root of the checkout.

    Returns:
        [`Prompts`]

    Raises:
        FileNotFoundError: If the checkout has not the file that holds them.
        ValueError: If the file has not the prompts, or they have other placeholders than expected.
    """
    name, places = OFFICIAL[metric]
    path = Path(checkout) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{checkout} has no {name}, so it is no checkout of {REPOSITORIES[metric]}, which holds "
            f"the official prompts of {metric}."
        )
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    texts = {}
    for part, (function, variable) in places.items():
        template = _assigned_text(tree, function, variable, FIELDS[part])
        if template is None:
            raise ValueError(
                f"{path} assigns no text with {', '.join(FIELDS[part]) or 'no placeholder'} to "
                f"{variable!r}{f' in {function}' if function else ''}. Check out a revision of "
                f"{REPOSITORIES[metric]} that does, or leave --official-prompts out."
            )
        texts[part] = template
    return Prompts("official", texts, str(path))


def _assigned_text(
    tree: ast.Module, function: str | None, variable: str, fields: tuple[str, ...]
) -> str | None:
    """The first text assigned to the variable that has exactly these placeholders, as a `str.format` template."""
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
        # A text that the script does not format has plain braces.
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
