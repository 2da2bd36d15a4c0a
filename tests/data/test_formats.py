"""Files of the forms that people have, small, each loaded as the documentation says."""

import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from tests.data.photos import ASTRONAUT, ROCKET, write_jsonl
from trl_balcap.data import load_captions
from trl_balcap.data.formats import known_row


def load_rows(*args: Any, **settings: Any) -> list[Any]:
    return list(load_captions(*args, **settings))


def prompt_of(row) -> str:
    [message] = row["prompt"]
    assert message["role"] == "user"
    return message["content"]


def llava(image: str, asked: str, said: str) -> dict:
    talk = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
    return {"id": Path(image).stem, "image": image, "conversations": talk}


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        pytest.param("coco/train2017/1.png", "What do you see?\n<image>", id="ShareGPT4V"),
        pytest.param("allava_laion/images/1.png", "<image>\nWhat do you see?", id="ALLaVA"),
    ],
)
def test_conversations_as_llava_has_them(tmp_path, image, asked):
    (tmp_path / image).parent.mkdir(parents=True)
    Image.open(ASTRONAUT).save(tmp_path / image)
    file = tmp_path / "annotations" / "caps.json"
    file.parent.mkdir()
    file.write_text(json.dumps([llava(image, asked, " An astronaut. ")]))

    [row] = load_rows(file, image_folder=tmp_path)

    assert (prompt_of(row), row["reference"], row["id"]) == (
        "What do you see?",
        "An astronaut.",
        "1",
    )
    assert row["image"].size == (512, 512)
    with pytest.raises(ValueError, match=r"caps\.json\[0\]: .*there is no such file"):
        load_captions(file)


def test_a_conversation_without_an_answer_is_named(tmp_path):
    row = llava(str(ROCKET), "What?", "A rocket.")
    empty = llava(str(ROCKET), "What?", "")
    file = write_jsonl(tmp_path / "a.jsonl", [row, empty])
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the reference is empty"):
        load_captions(file)


def test_messages_as_openai_and_trl_have_them():
    asked = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": "Tea."}]
    assert known_row({"messages": talk}) == {"prompt": "What is it?", "reference": "Tea."}


def test_coco_captions(tmp_path):
    images = [{"id": 7, "file_name": "rocket.jpg", "width": 640, "height": 427}]
    said = [("A rocket.", 7), ("A rocket rises at dusk.", 7), ("Someone else's.", 8)]
    captions = [{"image_id": i, "id": n, "caption": text} for n, (text, i) in enumerate(said)]
    file = tmp_path / "captions_train2017.json"
    file.write_text(json.dumps({"info": {}, "images": images, "annotations": captions}))

    [row] = load_rows(file, image_folder=ROCKET.parent)

    assert row["reference"] == "A rocket rises at dusk."
    assert row["captions"] == ["A rocket.", "A rocket rises at dusk."]
    images[0]["id"] = 9
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    with pytest.raises(ValueError, match=r"image 'rocket\.jpg': the reference is empty"):
        load_captions(file, image_folder=ROCKET.parent)
    file.write_text(json.dumps({"images": images, "annotations": [{"image_id": 7}]}))
    with pytest.raises(ValueError, match=r"is not a COCO captions file: KeyError\('caption'\)"):
        load_captions(file, image_folder=ROCKET.parent)


def test_caprl_qa_75k(tmp_path):
    """The card's own row: Parquet with the image's bytes, a marked prompt, lettered choices."""
    choices = ["A) 北京市", "B) 上海市", "C) 惠州市", "D) 广州市"]
    asked = {"question": "Which city is mentioned?", "choices": choices, "answer": "C"}
    row = {
        "id": "d976b8c551d62f12920218d54ecb6a58",
        "image": {"bytes": ROCKET.read_bytes(), "path": None},
        "prompt": [{"role": "user", "content": "<image> Please describe this image in detail."}],
        "data_source": "image_caption_rl",
        "reward_model": {"ground_truth": [asked]},
    }
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "train-00000.parquet")

    [loaded] = load_rows(tmp_path, references=False)

    assert prompt_of(loaded) == "Please describe this image in detail."
    assert loaded["questions"] == [
        {
            "question": "Which city is mentioned?",
            "choices": ["北京市", "上海市", "惠州市", "广州市"],
            "answer": "惠州市",
        }
    ]
    assert loaded["image"].size == (640, 427)
    with pytest.raises(ValueError, match=r"has no reference column.*references=False"):
        load_captions(tmp_path)


def test_a_parquet_shard_of_images_with_text(tmp_path):
    rows = [{"image": {"bytes": ROCKET.read_bytes(), "path": None}, "text": "A rocket."}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "shard.parquet")
    [row] = load_rows(tmp_path / "shard.parquet")
    assert (row["image"].size, row["reference"]) == ((640, 427), "A rocket.")
    (tmp_path / "shard.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"shard\.parquet cannot be read as parquet"):
        load_captions(tmp_path / "shard.parquet")


@pytest.mark.parametrize("folder", [False, True])
def test_webdataset_shards(tmp_path, folder):
    with tarfile.open(tmp_path / "00000.tar", "w") as shard:
        for name, content in (("000.jpg", ROCKET.read_bytes()), ("000.txt", b"A rocket.")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    [row] = load_rows(tmp_path if folder else tmp_path / "00000.tar")
    assert (row["image"].size, row["reference"]) == ((640, 427), "A rocket.")


def write_shard(path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"0.JPG": b"", "0.json": b'{"caption": "A rocket.", "id": 7}'}, id="json"),
        pytest.param({"0.jpg": b"", "0.txt": b"A rocket.", "0.json": b'{"id": 7}'}, id="both"),
    ],
)
def test_shards_whose_text_is_in_json(tmp_path, members):
    content = {name: said or ROCKET.read_bytes() for name, said in members.items()}
    [row] = load_rows(write_shard(tmp_path / "0.tar", content))
    assert (row["image"].size, row["reference"], row["id"]) == ((640, 427), "A rocket.", 7)


def test_a_parquet_shard_of_nothing_but_a_talk_and_its_image(tmp_path):
    said = [{"type": "text", "text": "A rocket."}]
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": said}]  # fmt: skip
    rows = [{"images": [{"bytes": ROCKET.read_bytes(), "path": None}], "messages": talk}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "shard.parquet")
    [row] = load_rows(tmp_path)
    assert (prompt_of(row), row["reference"], row["image"].size) == (
        "What?",
        "A rocket.",
        (640, 427),
    )
    paths = datasets.Dataset.from_dict({"image": [str(ROCKET)]})
    assert load_rows(paths, references=False)[0]["image"].size == (640, 427)


def test_what_lists_of_coco_and_llava_leave_open(tmp_path):
    """A caption that is null is no word "None"; ids of both kinds stand in LLaVA's own lists."""
    image = {"id": 7, "file_name": "rocket.jpg"}
    said = [{"image_id": 7, "caption": None}, {"image_id": 7, "caption": "Up."}]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": [image], "annotations": said}))
    [row] = load_rows(file, image_folder=ROCKET.parent)
    assert (row["reference"], row["captions"]) == ("Up.", ["Up."])

    rows = [llava(str(ROCKET), "What?", "A rocket.") | {"id": name} for name in (7, "7b")]
    file.write_text(json.dumps(rows))
    assert [row["id"] for row in load_rows(file)] == ["7", "7b"]


@pytest.mark.parametrize("answer", ["B", "b", "B)", "(B)", "B. 上海市", "上海市"])
def test_the_answer_of_a_caprl_question_however_it_is_set(answer):
    asked = {"question": "Which?", "choices": ["A. 北京市", "B. 上海市"], "answer": answer}
    for truth in ([asked], json.dumps([asked])):
        found = known_row({"reward_model": {"ground_truth": truth}})["questions"]
        assert found == [
            {"question": "Which?", "choices": ["北京市", "上海市"], "answer": "上海市"}
        ]


# ---- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", 'file_name,text\npictures/red.png,"Red, all of it."\n'),
        ("list.csv", 'image;caption\npictures/red.png;"Red, all of it."\n'),
        ("list.tsv", "image\tcaption\npictures/red.png\tRed, all of it.\n"),
    ],
)
def test_csv_as_spreadsheets_write_it(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8-sig")
    source = folder if name == "metadata.csv" else folder / name
    [row] = load_rows(source)
    assert (row["image"].size, row["reference"]) == ((60, 40), "Red, all of it.")


def test_csv_with_too_many_cells_or_an_open_quote(folder):
    file = folder / "list.csv"
    file.write_text("image,caption\npictures/red.png,Red, all of it.\n")
    with pytest.raises(ValueError, match=r"list\.csv:2: more cells than columns in the header"):
        load_captions(file)
    file.write_text('image,caption\npictures/red.png,"Red\n')
    with pytest.raises(ValueError, match=r"list\.csv:\d: not CSV"):
        load_captions(file)


# ---- rows in memory ----------------------------------------------------------------------------


def test_a_dataset_object_and_a_list_of_rows(folder):
    path = str(folder / "pictures" / "red.png")
    rows = [{"image": path, "reference": "Red."}]
    picture = [{"image": Image.open(path), "reference": "Red."}]
    stored = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    splits = datasets.DatasetDict({"train": stored})
    for given in (rows, picture, datasets.Dataset.from_list(rows), stored, splits):
        [row] = load_rows(given)
        assert (row["image"].getpixel((0, 0)), row["reference"]) == ((255, 0, 0), "Red.")


def test_a_list_of_images(folder):
    path = folder / "pictures" / "red.png"
    loaded = load_rows([path, Image.open(path), path.read_bytes()], references=False)
    assert [row["image"].size for row in loaded] == [(60, 40)] * 3


def test_one_image_in_a_list_is_that_image(folder):
    images = [[str(folder / "pictures" / "red.png")]]
    given = datasets.Dataset.from_dict({"images": images, "reference": ["Red."]})
    assert load_captions(given)[0]["image"].size == (60, 40)
    given = datasets.Dataset.from_dict({"images": [images[0] * 2], "reference": ["Red."]})
    with pytest.raises(ValueError, match="row 0 of the dataset: 2 images"):
        load_captions(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "a list of rows or images; got int"),
        (None, "got NoneType"),
        ([], "got list"),
        ([5], "must contain images, paths or rows, got 5"),
        (
            datasets.IterableDataset.from_generator(lambda: iter([{}])),
            "an IterableDataset does not allow",
        ),
        (datasets.Dataset.from_dict({"image": ["../a.png"], "text": ["x"]}), "is outside"),
        (datasets.Dataset.from_dict({"image": ["http://a.b/c"], "text": ["x"]}), "is a URL"),
    ],
)
def test_what_is_no_source_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        load_captions(given)


def test_an_image_that_is_stored_as_a_url_is_not_fetched():
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": [{"path": "http://127.0.0.1:9/a.png", "bytes": None}], "text": ["x"]}
    given = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(
        ValueError, match=r"row 0 of .*a\.png: it is a URL, and URLs are not fetched"
    ):
        load_captions(given)
    # Who allows it fetches it when the row is read, and is told what failed.
    allowed = load_captions(given, allow_urls=True)
    with pytest.raises(ValueError, match=r"the image http://127\.0\.0\.1:9/a\.png: "):
        allowed[0]


# ---- what is not there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["photoes", "./photos", "/nowhere/photos", "a/b/c", "owner/photo.jpg", "gone.jsonl"]
)
def test_a_mistyped_folder_is_no_question_to_the_hub(name, caplog):
    with pytest.raises(FileNotFoundError, match="File or folder not found:"):
        load_captions(name)
    assert not caplog.records


def test_a_mistyped_sub_folder_is_no_question_to_the_hub(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="File or folder not found: data/photoes"):
        load_captions("data/photoes")
    assert not caplog.records


def test_a_name_that_may_be_a_dataset_says_what_is_asked(caplog):
    """The tests are offline, so the Hub gives none."""
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(FileNotFoundError, match="The Hub answered"),
    ):
        load_captions("my/photos")
    assert "No local folder my/photos; looking for a dataset my/photos on the Hub" in caplog.text


@pytest.mark.parametrize("prompt", [["a"], 5, " "])
def test_a_prompt_is_text(folder, prompt):
    with pytest.raises(ValueError, match="prompt must be a string, the user's message"):
        load_captions(folder, references=False, prompt=prompt)


@pytest.mark.parametrize("prompt", [7, ["look"], [{"role": "user"}]])
def test_a_row_s_prompt_is_text_or_messages(folder, prompt):
    row = {"image": "pictures/red.png", "caption": "Red.", "prompt": prompt}
    with pytest.raises(
        ValueError, match=r"list\.jsonl:1: the prompt is .*, not a string or a list"
    ):
        load_captions(write_jsonl(folder / "list.jsonl", [row]))


def test_files_of_other_kinds_are_named(folder):
    for file in (ROCKET, folder / "captions.txt"):
        if file.suffix == ".txt":
            file.write_text("A rocket.")
        with pytest.raises(ValueError, match=r"is not a supported file: use \.jsonl"):
            load_captions(file)
