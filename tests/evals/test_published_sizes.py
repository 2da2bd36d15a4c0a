"""
The published files of DeCapBench and CapArena-Auto and CaptionQA's JSON, in their form and size.

`tests/data/test_stored.py` has CaptionQA's dataset, `test_agree.py` the 6,523 battles and
`test_leaderboard.py` the published models.
"""

import json
import random

import pytest
from PIL import Image

from trl_balcap.evals import Benchmarks, Caption
from trl_balcap.evals.metrics.caparena import CapArenaAuto
from trl_balcap.evals.metrics.captionqa import CaptionQA
from trl_balcap.evals.metrics.dcscore import DCScore
from trl_balcap.evals.rules.caparena import BASELINES
from trl_balcap.evals.suites import SUITES, suite_images
from trl_balcap.judge import Judge

JUDGE = Judge("scenes/oracle")
DOMAINS = {"natural": ("nat", 158), "document": ("doc", 178), "ecommerce": ("ecom", 121)}
DOMAINS["embodiedai"] = ("emb", 200)
MORE = 3  # images of DOCCI that no benchmark has


def captions_of(names) -> list[Caption]:
    return [Caption(name, "A red cup.", where=f"captions.json: {name!r}") for name in names]


@pytest.fixture
def decapbench(tmp_path):
    """A clone with 400 rows of 10 to 126 facts, 21,215 in all; 24 rows have a fact twice."""
    rng = random.Random(0)
    sizes = [10, 126, *(rng.randrange(20, 86) for _ in range(398))]
    for step in range(abs(sum(sizes) - 21215)):
        sizes[2 + step % 398] += 1 if sum(sizes) < 21215 else -1
    rows = []
    for place, n in enumerate(sizes):
        facts = [f"There is cup {k}." for k in range(n)]
        if place < 24:
            facts[-1] = facts[0]
        about = {"image_name": f"aar_test_{4600 + place:05d}.jpg", "oracle_caption": "word " * 189}
        rows.append({**about, "oracle_facts": facts})
    path = tmp_path / "DeCapBench/eval/human_annotated_oracle_facts.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_decapbench(decapbench, tmp_path):
    metric = DCScore.build(JUDGE, Benchmarks(data={"dcscore": decapbench}))
    counts = [len(oracle.facts) for oracle in metric.annotations.values()]
    assert (len(counts), sum(counts), min(counts), max(counts)) == (400, 21215, 10, 126)
    captions = captions_of(metric.annotations)
    assert metric.problems(captions) == []
    assert metric.workload(captions).calls == 400 * (1 + 3 + 3)
    assert metric.absent([{"image": f"x/{c.id}"} for c in captions[:-7]]) == 7
    [problem] = metric.problems(captions_of(["aar_test_05000.jpg"]))
    assert "no annotated facts for 'aar_test_05000.jpg'" in problem
    # The images are a folder, here with more than the benchmark has.
    folder = tmp_path / "images"
    folder.mkdir()
    picture = Image.new("RGB", (8, 8))
    for number in range(4600, 5000 + MORE):
        picture.save(folder / f"aar_test_{number:05d}.jpg")
    rows = suite_images(SUITES["decapbench"], folder, store=tmp_path / "store")
    covered = [metric.covers(Caption(row.id, "A cup.", row.path)) for row in rows]
    assert (len(covered), sum(covered)) == (400 + MORE, 400)


def test_caparena_auto(tmp_path):
    """600 images, 200 with each baseline."""
    path = tmp_path / "caparena_auto_600.json"
    content = {}
    for place in range(600):
        baseline = list(BASELINES)[place % 3]
        said = {"human": "word " * 120, **dict.fromkeys(BASELINES, "word " * 110)}
        content[f"test_{place:05d}.jpg"] = {"captions": said, "ref_model": baseline}
    path.write_text(json.dumps(content))
    captions = captions_of(content)
    for model, calls in (("mine", 600), ("GPT-4o-0806", 400)):
        benchmarks = Benchmarks(data={"caparena": path}, model=model)
        metric = CapArenaAuto.build(JUDGE, benchmarks)
        assert metric.problems(captions) == []
        assert metric.workload(captions).calls == calls
    [problem] = metric.problems(captions[:-3])  # the last is a battle with each baseline
    assert "2 of 600 images have no caption" in problem


@pytest.mark.parametrize("flat", [False, True], ids=["by image", "by question"])
def test_captionqa_s_json(tmp_path, flat):
    """8,492 questions on 657 images of four domains, as rows of images or of questions."""
    ids = [
        (f"{prefix}_{number:03d}", domain)
        for domain, (prefix, n) in DOMAINS.items()
        for number in range(1, n + 1)
    ]
    asked = {"question": "Which colour is the cup?", "choices": ["red", "blue", "green"]}
    asked |= {"answer": "red", "category": ["Attribute - Color"]}
    counts = [8492 // 657 + (place < 8492 % 657) for place in range(657)]
    if flat:
        rows = [
            {"id": name, "domain": domain, **asked}
            for (name, domain), n in zip(ids, counts, strict=True)
            for _ in range(n)
        ]
    else:
        rows = [
            {"id": name, "domain": domain, "questions": [asked] * n}
            for (name, domain), n in zip(ids, counts, strict=True)
        ]
    path = tmp_path / "captionqa.json"
    path.write_text(json.dumps(rows))
    metric = CaptionQA.build(JUDGE, Benchmarks(data={"captionqa": path}))
    captions = captions_of(name for name, _ in ids)
    assert metric.problems(captions) == []
    assert metric.workload(captions).calls == 8492
    natural = CaptionQA.build(JUDGE, Benchmarks(data={"captionqa": path}, split="natural"))
    assert sum(not natural.leaves_out(caption) for caption in captions) == 158
