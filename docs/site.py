"""Pages of the site that are written elsewhere: README and others, settings out of dataclasses."""

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from transformers import TrainingArguments
from trl import GRPOConfig

from trl_balcap.config import BalCapConfig, CaptioningArguments
from trl_balcap.judge.settings import SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=beneath_docs(text)))
    files.append(File.generated(config, "settings.md", content=settings()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Files of the repository that are no page of the site are named, and not linked to."""
    return re.sub(
        r"\[([^\]]+)\]\((?:\.\./)?((?:benchmarks|examples|tests|trl_balcap)/[^)]+)\)",
        r"\1 (`\2`)",
        markdown,
    )


def beneath_docs(text: str) -> str:
    """A page of the repository's root with its links as seen from docs/."""
    for page, source in PAGES.items():
        text = text.replace(f"({source})", f"({page})")
    return re.sub(r"(\]\(|src=\")docs/", r"\1", text)


def settings() -> str:
    """Every setting that is ours, out of the dataclass that declares it."""
    trls = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    ours = [
        field
        for field in dataclasses.fields(BalCapConfig)
        if field.name not in trls or field.default != trls[field.name]
    ]
    script = [field for field in dataclasses.fields(CaptioningArguments) if not is_judges(field)]
    rest = [field for field in dataclasses.fields(BalCapConfig) if field not in ours]
    transformers = {field.name for field in dataclasses.fields(TrainingArguments)}
    return "\n\n".join(
        (
            "# Settings",
            "Every setting is a key of a recipe (YAML) and a flag of `examples/train_qwen.py`.",
            "## `BalCapConfig`",
            "All of TRL's `GRPOConfig`, and these, which are new or have another default:",
            table(ours),
            "## The judge",
            "Arguments of `Judge(...)`; `judge_<name>` in a recipe, `TRL_BALCAP_JUDGE_<NAME>` in "
            "the environment, and flags of the commands that ask a judge.",
            table(list(SETTINGS.values())),
            "## The training script",
            "Further arguments of `examples/train_qwen.py`:",
            table(script),
            "## TRL's settings",
            "The rest of `GRPOConfig`, as TRL explains it.",
            table([field for field in rest if field.name not in transformers]),
            "## transformers' settings",
            "The rest of `TrainingArguments`, as transformers explains it.",
            table([field for field in rest if field.name in transformers]),
        )
    )


def is_judges(field: "dataclasses.Field[Any]") -> bool:
    return field.name.removeprefix("judge_") in SETTINGS and field.name.startswith("judge_")


def table(fields: "list[dataclasses.Field[Any]]") -> str:
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for field in fields:
        default = f"`{field.default!r}`"
        if field.default_factory is not dataclasses.MISSING:
            default = f"`{field.default_factory()!r}`"
        elif field.default is dataclasses.MISSING:
            default = "required"
        # Others' help texts have line ends and signs of markup in them.
        meaning = " ".join(html.escape(str(field.metadata.get("help", "")), quote=False).split())
        meaning = meaning.replace("|", "\\|")
        rows.append(f"| `{field.name}` | {default} | {meaning} |")
    return "\n".join(rows)
