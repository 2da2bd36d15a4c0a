"""Builds a self-contained HTML page: runs embedded as JSON, style and scripts allowed by hash."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trl_balcap.align import align, sentences
from trl_balcap.report.alarms import alarms
from trl_balcap.report.charts import charts, evaluations, headline, reward_names
from trl_balcap.report.runs import Run, bounded_rows, bounded_thumbnails, score_of

__all__ = ["MAX_ROWS", "report_data", "report_page"]

MAX_ROWS = 2000
"""Maximum number of rollouts per run, so that a page of one run stays under 25 MB."""

_THUMBNAIL_BYTES = 10_000_000
_ASSETS = files("trl_balcap.report") / "assets"
_SCRIPTS = (
    "dom.js",
    "state.js",
    "caption.js",
    "overview.js",
    "captions.js",
    "compare.js",
    "main.js",
)
_CHARTS = "uplot.iife.min.js"
_STYLES = ("uplot.min.css", "page.css", "captions.css")


def report_page(
    runs: Sequence[Run],
    *,
    title: str | None = None,
    max_rows: int = MAX_ROWS,
    live: str | None = None,
) -> str:
    """
    The report as one HTML page that needs no network and no other files.

    Its content-security policy allows only the page's own style and scripts, by their hashes, and
    embedded pictures. Text of captions and judges is embedded as JSON and shown only as text.

    Args:
        runs (`Sequence[Run]`):
            Runs to show, see [`find_runs`].
        title (`str`, *optional*):
            The page's title. Defaults to the runs' names.
        max_rows (`int`, *optional*, defaults to `2000`):
            Maximum number of rollouts to show per run, in whole groups.
        live (`str`, *optional*):
            Version of the rows, for a page that asks its server for newer ones.

    Returns:
        `str`: the page.
    """
    data = report_data(runs, max_rows=max_rows)
    data["live"] = live
    style = "\n".join(_asset(name) for name in _STYLES)
    own = "\n".join(_asset(name) for name in _SCRIPTS)
    script = f"{_asset(_CHARTS)}\n(() => {{\n'use strict';\n{own}\n}})();\n"
    environment = Environment(
        loader=PackageLoader("trl_balcap.report", "assets"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html").render(
        title=title or ", ".join(run["name"] for run in data["runs"]),
        policy=_policy(style, script, live),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_inert_json(data)),
    )


def report_data(runs: Sequence[Run], *, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """
    The data for the page's scripts.

    Args:
        runs (`Sequence[Run]`):
            Runs to show.
        max_rows (`int`, *optional*, defaults to `2000`):
            Maximum number of rollouts to show per run.

    Returns:
        `dict`: `"runs"` (name, charts, facts), `"groups"` (what the rollouts of an image share),
            `"rows"` (one per caption, with its sentences and the sentence of each assertion),
            `"images"` (data URLs by digest) and `"rewards"` (their names, in order).
    """
    groups: dict[tuple[Any, ...], int] = {}
    shared: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    images: dict[str, Any] = {}
    for number, run in enumerate(runs):
        kept = bounded_rows(run.rows, max_rows)
        pictures = bounded_thumbnails(
            run.thumbnails, (row["image"] for row in kept), _THUMBNAIL_BYTES // len(runs)
        )
        for digest, picture in pictures.items():
            data = base64.b64encode(picture.data).decode("ascii")
            url = f"data:{picture.media_type};base64,{data}"
            images.setdefault(digest, [url, picture.width, picture.height])
        for row in kept:
            key = (number, row["split"], row["step"], row["group"] or row["id"])
            if key not in groups:
                groups[key] = len(shared)
                shared.append(_group(row, number))
            rows.append(_row(row, groups[key]))
    return {
        "runs": [_run(run) for run in runs],
        "groups": shared,
        "rows": rows,
        "images": images,
        "rewards": list(dict.fromkeys(name for run in runs for name in reward_names(run))),
    }


def _run(run: Run) -> dict[str, Any]:
    known = ("settings", "versions", "warnings")
    facts = {name: run.facts.get(name) for name in known}
    training = [entry for entry in run.log if "loss" in entry]
    facts["warnings"] = [*(facts["warnings"] or ()), *alarms(training).values()]
    about = {k: v for k, v in run.facts.items() if k not in (*known, "title", "length_gate")}
    return {
        "name": str(run.facts.get("title") or run.name),
        "rows": run.n_rows,
        "charts": charts(run),
        "headline": headline(run),
        "evaluations": evaluations(run),
        "gate": run.facts.get("length_gate"),
        "about": about,
        **facts,
    }


def _group(row: dict[str, Any], run: int) -> dict[str, Any]:
    names = ("step", "split", "prompt", "image", "reference")
    return {"run": run, **{name: row[name] for name in names}}


def _row(row: dict[str, Any], group: int) -> dict[str, Any]:
    parts = sentences(row["completion"] or "")
    said = row["assertions"]
    places = align([one["text"] or "" for one in said], parts) if said else []
    names = ("id", "length_ratio", "gated", "rewards", "gated_rewards", "reasons")
    names += ("advantage_shares", "advantage", "tokens", "latency", "usd", "extra")
    grades = [row[name] for name in ("clarity", "fluency", "coherency")]
    return {
        "group": group,
        "sentences": parts,
        "assertions": None
        if said is None
        else [
            [one["text"], one["correct"], one["pointable"], place]
            for one, place in zip(said, places, strict=True)
        ],
        "units": None
        if row["units"] is None
        else [[unit["text"], unit["covered"]] for unit in row["units"]],
        "grades": grades if any(grade is not None for grade in grades) else None,
        "score": score_of(row),
        **{name: row[name] for name in names},
    }


def _inert_json(data: dict[str, Any]) -> str:
    """JSON whose text cannot close the script element around it."""
    text = json.dumps(_plain(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    """Rounded numbers; NaN and infinity become missing."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _policy(style: str, script: str, live: str | None) -> str:
    rules = [
        "default-src 'none'",
        f"script-src '{_hash(script)}'",
        f"style-src '{_hash(style)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if live:
        rules.append("connect-src 'self'")
    return "; ".join(rules)


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")


def _asset(name: str) -> str:
    # A browser hashes the source with these line endings, whatever the file uses.
    return (_ASSETS / name).read_text(encoding="utf-8").replace("\r\n", "\n")
