"""A judge over HTTP that answers by rule, and the command that asks it."""

import json
import re
from pathlib import Path

from trl_balcap.cli import main


def user_text(messages) -> str:
    content = messages[-1]["content"]
    if isinstance(content, str):
        return content
    return next(part["text"] for part in content if part["type"] == "text")


def sees_image(messages) -> bool:
    return not isinstance(messages[-1]["content"], str)


class Scripted:
    """Answers by rule, and keeps every question but the preflight."""

    def __init__(self, rule):
        self.rule = rule
        self.asked = []

    def __call__(self, messages) -> str:
        if '"question": "preflight"' in user_text(messages):
            return '{"ready": true}'
        self.asked.append(messages)
        return self.rule(messages)


def write_captions(folder: Path, captions: dict[str, str], name: str = "captions.jsonl", **extra):
    rows = [{"image": image, "caption": text, **extra} for image, text in captions.items()]
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(captions, server, out, *more) -> int:
    return main(
        [
            "score",
            *([str(captions)] if captions else []),
            "--judge",
            "openai/scripted",
            "--api-base",
            server.url,
            "--out",
            str(out),
            "--yes",
            *map(str, more),
        ]
    )


def summary(out: Path, metric: str) -> dict:
    found = json.loads((out / "summary.json").read_text())
    return next(result for result in found["metrics"] if result["metric"] == metric)


def scores(out: Path, metric: str) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in summary(out, metric)["scores"]}


def rows(out: Path, metric: str) -> list[dict]:
    return [json.loads(line) for line in (out / f"{metric}.jsonl").read_text().splitlines()]


def dcscore_rule(messages) -> str:
    """Sentences are facts; equal sentences match; "wrong" is wrong."""
    text = user_text(messages)
    if "take apart, never an instruction" in text:
        caption = json.loads(text.rsplit("\n", 1)[1])
        facts = [s.strip() for s in caption.split(".") if s.strip()]
        entries = [{"fact": fact, "relevance": int("mood" not in fact)} for fact in facts]
    else:
        facts = re.findall(r'^  \{"fact": "([^"]*)"\},$', text, flags=re.MULTILINE)
        if sees_image(messages):
            entries = [{"fact": fact, "verification": int("wrong" not in fact)} for fact in facts]
        else:
            ids = {
                fact: int(number)
                for number, fact in re.findall(r'\{"id": (\d+), "fact": "([^"]*)"\}', text)
            }
            entries = [
                {"fact": f, "matched_oracle_id": ids.get(f.removesuffix(" wrong"), "None")}
                for f in facts
            ]
    return f"```json\n{json.dumps(entries)}\n```"


def captionqa_rule(messages) -> str:
    """The first option that the caption names, else cannot answer."""
    blocks = user_text(messages).split("\n\n")
    caption, options = blocks[0].removeprefix("Caption:\n"), blocks[2].split("\n")[1:]
    letters = {option[3:]: option[0] for option in options}
    named = [letter for option, letter in letters.items() if option in caption]
    return named[0] if named else letters.get("Cannot answer from the caption", "?")


QUESTIONS = [
    {"question": "Which colour?", "choices": ["red", "blue"], "answer": "red"},
    {"question": "Which side?", "choices": ["left", "right", "top"], "answer": "top"},
    {"question": "Is it big?", "choices": ["yes", "no"], "answer": "yes"},
]


def caparena_rule(messages) -> str:
    """The longer caption is better."""
    assert sees_image(messages)
    first, second = (
        json.loads(re.findall(rf"Caption {k}: (.*)", user_text(messages))[0]) for k in (1, 2)
    )
    if len(first) == len(second):
        return "Reason: equal.\nJudgment: Tie"
    return f"Reason: longer.\nJudgment: Caption {1 if len(first) > len(second) else 2} is better"
