"""
The published benchmarks on drawn scenes: their data, and the exact judge's answers to their
questions.

The judge recognises the questions of DCScore, CaptionQA and CapArena-Auto as this package words
them, so every metric runs without an API key or a download. It answers only from what it is sent:
the text and the pixels of the image.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.scenes.grammar import (
    CountClaim,
    Faults,
    MetaClaim,
    ThingClaim,
    describe,
    faulty_caption,
)
from trl_balcap.scenes.lexicon import NUMBERS
from trl_balcap.scenes.make import write_scenes
from trl_balcap.scenes.parsing import parse_caption, parse_sentence
from trl_balcap.scenes.rules import covered, decompose, verdict
from trl_balcap.scenes.world import COLOURS, SHAPES, Scene

__all__ = [
    "benchmark_answer",
    "caption_f1",
    "scene_questions",
    "values_told",
    "write_benchmarks",
]

CANNOT_ANSWER = "Cannot answer from the caption"
_BASELINES = ("GPT-4o-0806", "CogVLM2-llama3-chat-19B", "MiniCPM-V2.6-8B")
_PRISM = (
    "Here is a detailed caption of an image: ",
    ". Please answer the question based on the caption.",
)
_NUMBERS = {"things": NUMBERS[1:7], "objects": NUMBERS[1:]}
"""The numbers among which a question about a small scene and about a rich one lets choose."""


def benchmark_answer(text: str, look: Callable[[], Scene]) -> str | None:
    """
    The exact reply to a question of a published benchmark.

    Args:
        text (`str`):
            The user's turn.
        look (`Callable`):
            Returns the scene in the image sent with the text.

    Returns:
        `str` or `None`: The reply; `None` if the text is not such a question.

    Example:

    ```python
    >>> question = "Caption:\\nThere are two things.\\n\\nQuestion:\\nHow many things are there?"
    >>> benchmark_answer(question + "\\n\\nOptions:\\nA. one\\nB. two\\n\\nAnswer:", lambda: Scene(()))
    'B'

    ```
    """  # noqa: E501
    if text.startswith("Take the caption of an image apart into atomic facts."):
        return _fenced(_extracted(json.loads(text.rpartition("\n")[2])))
    if "\nFirst list:\n" in text and "\nSecond list:\n" in text:
        first, _, second = text.partition("\nSecond list:\n")
        return _fenced(_matched(_listed(first), _listed(second)))
    if text.startswith("Check statements about the image"):
        scene = look()
        facts = [entry["fact"] for entry in _listed(text.rpartition("\nStatements:\n")[2])]
        return _fenced([{"fact": f, "verification": int(verdict(f, scene)[0])} for f in facts])
    if text.startswith("Caption:\n") and text.endswith("\n\nAnswer:"):
        return _letter(text)
    if text.startswith(_PRISM[0]) and _PRISM[1] in text:
        return _boxed(text)
    if text.endswith("\nWhich caption is better?"):
        first, second = (
            json.loads(found[1])
            for number in (1, 2)
            if (found := re.search(rf"^Caption {number}: (.*)$", text, flags=re.MULTILINE))
        )
        return _better(first, second, look())
    return None


def scene_questions(scene: Scene, rng: random.Random) -> list[dict[str, Any]]:
    """
    Multiple-choice questions about a scene, in CaptionQA's format: the colour and shape of each
    thing, and the number of things.
    """
    questions: list[dict[str, Any]] = []

    def ask(question: str, answer: str, others: Sequence[str], category: str) -> None:
        choices = [answer, *rng.sample([other for other in others if other != answer], 3)]
        rng.shuffle(choices)
        entry = {"question": question, "choices": choices, "answer": answer}
        questions.append({**entry, "category": [f"Attribute - {category}"], "source": "scenes"})

    for thing in scene.things:
        place = f"{thing.row} {thing.column}"
        ask(f"What colour is the thing at the {place}?", thing.colour, list(COLOURS), "Colour")
        ask(f"What shape is the thing at the {place}?", thing.shape, SHAPES, "Shape")
    counted = "things" if scene.richness == "small" else "objects"
    number = NUMBERS[len(scene.things)]
    ask(f"How many {counted} are there?", number, _NUMBERS[counted], "Number")
    return questions


def write_benchmarks(folder: str | Path, n: int, seed: int = 0) -> dict[str, Path]:
    """
    Write scenes with each benchmark's data in its published format, and captions from two
    captioners, "good" and "poor".

    Args:
        folder (`str` or `Path`): Output folder; created if missing.
        n (`int`): Number of scenes.
        seed (`int`, *optional*, defaults to `0`): The same seed gives the same files.

    Returns:
        `dict[str, Path]`: The data under "dcscore", "captionqa" and "caparena"; the captions under
        "good" and "poor".

    Raises:
        `FileExistsError`: if the folder already contains scenes.
    """
    folder = Path(folder)
    listed = write_scenes(folder, n, seed)
    rng = random.Random(seed)
    rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    facts, questions, asked, battles = [], [], [], {}
    captions: dict[str, list[dict[str, str]]] = {"good": [], "poor": []}
    for place, row in enumerate(rows):
        name = Path(row["image"]).name
        scene = _scene_of(row["reference"])
        rivals = [faulty_caption(scene, rng, Faults(wrong=0.4, omit=0.3)) for _ in _BASELINES]
        facts.append(
            {
                "image_name": name,
                "oracle_caption": row["reference"],
                "oracle_facts": decompose(row["reference"]),
            }
        )
        identity = Path(name).stem  # like CaptionQA's "nat_001" for nat_001.jpg
        about = {"id": identity, "questions": scene_questions(scene, rng), "domain": "natural"}
        questions.append(about)
        asked += [
            {"image": row["image"], "prompt": _prism_prompt(question), "answer": _key(question)}
            for question in about["questions"]
        ]
        baseline = _BASELINES[place % len(_BASELINES)]
        said = {"human": row["reference"], **dict(zip(_BASELINES, rivals, strict=True))}
        battles[name] = {"captions": said, "ref_model": baseline}
        for model, faults in (("good", Faults(wrong=0.1)), ("poor", Faults(wrong=0.5, omit=0.4))):
            caption = faulty_caption(scene, rng, faults) or "There is a thing."
            captions[model].append({"id": identity, **row, "caption": caption})
    paths = {
        "dcscore": folder / "human_annotated_oracle_facts.jsonl",
        "captionqa": folder / "captionqa.json",
        "caparena": folder / "caparena_auto.json",
        "prism": folder / "prism.json",
        "good": folder / "good.jsonl",
        "poor": folder / "poor.jsonl",
    }
    _write_lines(paths["dcscore"], facts)
    paths["captionqa"].write_text(json.dumps(questions, indent=1), encoding="utf-8")
    paths["caparena"].write_text(json.dumps(battles, indent=1), encoding="utf-8")
    paths["prism"].write_text(json.dumps(asked, indent=1), encoding="utf-8")
    for model, lines in captions.items():
        _write_lines(paths[model], lines)
    return paths


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _scene_of(reference: str) -> Scene:
    """The scene that a perfect caption describes."""
    claims = parse_caption(reference)
    things = [claim.thing for claim in claims if isinstance(claim, ThingClaim)]
    return Scene(tuple(thing for thing in things if thing is not None))


def _extracted(caption: str) -> list[dict[str, Any]]:
    """The facts in a caption; commentary is marked as not relevant."""
    return [
        {"fact": fact, "relevance": int(not isinstance(parse_sentence(fact), MetaClaim))}
        for fact in decompose(caption)
    ]


def _matched(facts: list[dict[str, Any]], oracle: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each fact with the annotated fact about the same place or the count, right or wrong."""
    subjects = {_subject(entry["fact"]): entry["id"] for entry in reversed(oracle)}
    return [
        {"fact": e["fact"], "matched_oracle_id": subjects.get(_subject(e["fact"]), "None")}
        for e in facts
    ]


def _subject(fact: str) -> object:
    claim = parse_sentence(fact)
    return fact if claim is None else claim.about


def _letter(text: str) -> str:
    """The option that the caption names; "cannot answer" if it names none."""
    blocks = text.split("\n\n")
    options = {line[3:]: line[0] for line in blocks[-2].splitlines()[1:]}
    question = blocks[-3].removeprefix("Question:\n")
    caption = "\n\n".join(blocks[:-3]).removeprefix("Caption:\n")
    return options.get(
        next(iter(values_told(question, caption)), ""), options.get(CANNOT_ANSWER, "?")
    )


def values_told(question: str, caption: str) -> list[str]:
    """
    Each value that a caption gives for a question from [`scene_questions`], in caption order.

    Example:

    ```python
    >>> values_told("How many things are there?", "There are two things. There is one thing.")
    ['two', 'one']

    ```
    """
    claims = parse_caption(caption)
    if counted := re.fullmatch(r"How many (things|objects) are there\?", question):
        counts = [NUMBERS[claim.count] for claim in claims if isinstance(claim, CountClaim)]
        return [count for count in counts if count in _NUMBERS[counted[1]]]
    asked = re.fullmatch(r"What (colour|shape) is the thing at the (\w+) ([\w ]+)\?", question)
    if asked is None:
        return []
    told = [
        getattr(claim, asked[1])
        for claim in claims
        if isinstance(claim, ThingClaim) and (claim.row, claim.column) == (asked[2], asked[3])
    ]
    return [value for value in told if value is not None]


def _prism_prompt(question: dict[str, Any]) -> str:
    """A question in the chat format of CapRL's data."""
    options = [f"{'ABCD'[place]}. {choice}" for place, choice in enumerate(question["choices"])]
    asked = "\n".join((question["question"], *options))
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return f"<|im_start|>user\n{image}{asked}<|im_end|>\n<|im_start|>assistant\n"


def _key(question: dict[str, Any]) -> str:
    return "ABCD"[question["choices"].index(question["answer"])]


def _boxed(text: str) -> str:
    """The option that the caption names, or Z for none, in the format that Prism reads."""
    caption, _, asked = text.removeprefix(_PRISM[0]).partition(_PRISM[1])
    question, *options = asked.splitlines()
    letters = {option[3:]: option[0] for option in options}
    letter = letters.get(next(iter(values_told(question, caption)), ""), "Z")
    return rf"<think>It says so.</think> <answer>\boxed{{{letter}}}</answer>"


def _better(first: str, second: str, scene: Scene) -> str:
    """The caption whose correct assertions have the higher F1 against the scene's facts."""
    scores = [caption_f1(caption, scene) for caption in (first, second)]
    reason = f"the first says {scores[0]:.2f} of the image, the second {scores[1]:.2f}."
    if scores[0] == scores[1]:
        return f"Reason: {reason}\nJudgment: Tie"
    better = 1 if scores[0] > scores[1] else 2
    return f"Reason: {reason}\nJudgment: Caption {better} is better"


def caption_f1(caption: str, scene: Scene) -> float:
    """F1 of a caption's correct assertions against the scene's facts."""
    said, wanted = decompose(caption), decompose(describe(scene))
    if not said or not wanted:
        return 0.0
    right = [fact for fact in said if all(verdict(fact, scene))]
    precision, recall = len(right) / len(said), sum(covered(right, wanted)) / len(wanted)
    return 2 * precision * recall / (precision + recall) if right else 0.0


def _listed(text: str) -> list[dict[str, Any]]:
    """Entries of the list in a DCScore prompt, one per line."""
    lines = re.findall(r"^  (\{.*\}),$", text, flags=re.MULTILINE)
    return [json.loads(line) for line in lines]


def _fenced(entries: list[dict[str, Any]]) -> str:
    return f"```json\n{json.dumps(entries, ensure_ascii=False)}\n```"
