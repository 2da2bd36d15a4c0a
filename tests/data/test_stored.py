"""Datasets with their images inside: CaptionQA in its published form and size, and others."""

import json

import datasets
import pytest
from PIL import Image

from trl_balcap.captioning.listing import list_images
from trl_balcap.captioning.run import caption_images
from trl_balcap.data.stored import is_dataset, load_rows
from trl_balcap.evals import Benchmarks, Caption
from trl_balcap.evals.metrics.captionqa import CaptionQA
from trl_balcap.evals.questions import load_questions
from trl_balcap.evals.suites import SUITES, suite_images
from trl_balcap.judge import Judge
from trl_balcap.scenes.server import serve

# Images by domain and questions in all, as published; document rows may show several pages.
SIZES = {"natural": ("nat", 158), "document": ("doc", 178), "ecommerce": ("ecom", 121)}
SIZES["embodiedai"] = ("emb", 200)
QUESTIONS = 8492


def picture(colour: str) -> dict:
    return {"bytes": datasets.Image().encode_example(Image.new("RGB", (8, 8), colour))["bytes"]}


@pytest.fixture(scope="module")
def captionqa(tmp_path_factory):
    """The dataset as the Hub has it: a split for each domain, and "all"."""
    rows = []
    for domain, (prefix, n) in SIZES.items():
        for number in range(1, n + 1):
            several = 2 if domain == "document" and number % 10 == 0 else 1
            images = [picture("red"), picture("blue")][:several]
            paths = [f"images/{prefix}_{number:03d}_{k}.png" for k in range(several)]
            rows.append({"id": f"{prefix}_{number:03d}", "images": images, "image_paths": paths})
            rows[-1] |= {"domain": domain, "questions": []}
    asked = {"question": "Which colour?", "choices": ["red", "blue"], "answer": "red"}
    for number in range(QUESTIONS):
        about = {"category": ["Attribute - Color"], "source": "model"}
        rows[number % len(rows)]["questions"].append(asked | about)
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
            "image_paths": datasets.List(datasets.Value("string")),
            "domain": datasets.Value("string"),
            "questions": datasets.List(
                {
                    "question": datasets.Value("string"),
                    "choices": datasets.List(datasets.Value("string")),
                    "answer": datasets.Value("string"),
                    "category": datasets.List(datasets.Value("string")),
                    "source": datasets.Value("string"),
                }
            ),
        }
    )
    whole = datasets.Dataset.from_list(rows, features=features)
    splits = {name: [r for r in rows if r["domain"] == name] for name in SIZES}
    made = {
        name: datasets.Dataset.from_list(some, features=features) for name, some in splits.items()
    }
    path = tmp_path_factory.mktemp("hub") / "CaptionQA"
    datasets.DatasetDict({**made, "all": whole}).save_to_disk(path)
    return path


def test_captionqa_as_it_is_published(captionqa, tmp_path):
    assert is_dataset(captionqa)
    everything = load_questions(captionqa)
    assert (len(everything), sum(len(row["questions"]) for row in everything)) == (657, QUESTIONS)
    assert len(load_questions(captionqa, split="natural")) == 158
    rows = suite_images(SUITES["captionqa"], captionqa, store=tmp_path / "images")
    assert (rows[0].id, len(rows)) == ("nat_001", 657)
    assert sum(len(row.paths) == 2 for row in rows) == 17
    assert Image.open(rows[0].path).getpixel((0, 0)) == (255, 0, 0)
    before = rows[0].path.stat().st_mtime_ns
    again = suite_images(SUITES["captionqa"], captionqa, split="natural", store=tmp_path / "images")
    assert (len(again), again[0].path.stat().st_mtime_ns) == (158, before)  # not written anew


def test_a_domain_alone_ignores_the_ids_of_others(captionqa):
    benchmarks = Benchmarks(data={"captionqa": captionqa}, split="natural")
    metric = CaptionQA.build(Judge("scenes/oracle"), benchmarks)
    said = [Caption(name, "A cup.") for name in ("nat_001", "doc_001", "nat_999", "photo")]
    assert [metric.leaves_out(caption) for caption in said] == [False, True, False, False]
    whole = CaptionQA.build(Judge("scenes/oracle"), Benchmarks(data={"captionqa": captionqa}))
    assert not whole.leaves_out(Caption("doc_999", "A cup."))  # named as unknown, not ignored


def test_several_images_get_one_caption(captionqa, tmp_path, monkeypatch):
    """As the official captioner asks: it says how many images there are."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    rows = suite_images(SUITES["captionqa"], captionqa, split="document", store=tmp_path / "images")
    asked = []

    def answer(messages):
        asked.append(messages[-1]["content"])
        return "Two pages."

    out = tmp_path / "captions.jsonl"
    with serve(answer=answer) as server:
        caption_images("openai/x", rows[9:10], out, prompt="Describe it.", api_base=server.url)
    *images, text = asked[-1]
    assert (len(images), text["text"]) == (2, "You are viewing 2 related images. Describe it.")
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["id"], row["images"]) == (
        "doc_010",
        ["images/doc_010-0.png", "images/doc_010-1.png"],
    )


def test_rows_of_json_that_list_several_images(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    path = tmp_path / "captionqa.json"
    path.write_text(json.dumps([{"id": "doc_1", "image_paths": ["a.png", "b.png"]}]))
    (row,) = list_images(path)
    assert row.paths == (tmp_path / "a.png", tmp_path / "b.png")


def test_parquet_with_references_and_what_is_no_dataset(tmp_path):
    rows = [{"id": "x/1", "image": picture("red"), "reference": "Red."}, {"id": "2", "image": None}]
    rows[1]["reference"] = "Nothing."
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "reference": datasets.Value("string"),
        }
    )
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    first, second = list_images(path, store=tmp_path / "images")
    assert (first.id, first.path, first.reference) == (
        "x/1",
        tmp_path / "images" / "x" / "1.png",
        "Red.",
    )
    assert not second.path.exists()  # said, with the others that cannot be opened
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"id": ["1"]})})
    splits.save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match="has no split 'odd', only train"):
        load_rows(tmp_path / "splits", "odd")
    assert not any(map(is_dataset, (tmp_path / "none", "photos", "tests/none", "./a/b")))
