"""Captions from disk: each source, each way an image can be wrong, and what the error says."""

import json
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.data.photos import ASTRONAUT, ROCKET, ROWS, write_jsonl
from trl_balcap.data import DEFAULT_PROMPT, load_captions

# --- sources ---


def test_a_jsonl_file_gives_prompt_image_reference_and_the_rest(folder):
    dataset = load_captions(write_jsonl(folder / "train.jsonl", ROWS))

    assert dataset.column_names == ["prompt", "image", "reference", "id"]
    assert dataset[0]["prompt"] == [{"role": "user", "content": DEFAULT_PROMPT}]
    assert dataset[0]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert dataset[1]["reference"] == "Nothing at all."
    assert dataset[1]["id"] == 2


def test_transparency_turns_white(folder):
    clear = load_captions(write_jsonl(folder / "train.jsonl", ROWS))[1]["image"]
    assert (clear.mode, clear.getpixel((5, 5))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.jsonl", "train.jsonl"])
def test_a_folder_with_a_list_and_file_names_that_ride_along(folder, name):
    rows = [{"file_name": row["image"], "caption": row["reference"]} for row in ROWS]
    write_jsonl(folder / name, rows)

    dataset = load_captions(folder)

    assert dataset.column_names == ["prompt", "image", "reference", "file_name"]
    assert dataset["file_name"][:] == ["pictures/red.png", "pictures/clear.png"]
    assert dataset[0]["image"].size == (60, 40)


def test_sidecar_texts_beside_the_images(folder):
    (folder / "pictures" / "red.txt").write_text("A red board.\n", encoding="utf-8")
    (folder / "pictures" / "clear.txt").write_text("窓の外は雨。", encoding="utf-8")

    dataset = load_captions(folder)

    assert dataset["file_name"][:] == ["pictures/clear.png", "pictures/red.png"]
    assert dataset["reference"][:] == ["窓の外は雨。", "A red board."]


def test_a_split_is_a_folder_or_a_file_of_that_name(folder):
    write_jsonl(folder / "train.jsonl", ROWS)
    write_jsonl(folder / "test.jsonl", ROWS[:1])
    write_jsonl(folder / "held-out" / "metadata.jsonl", [{**ROWS[0], "image": str(ASTRONAUT)}])

    assert len(load_captions(folder)) == 2
    assert len(load_captions(folder, split="test")) == 1
    assert load_captions(folder, split="held-out")[0]["image"].size == (512, 512)
    with pytest.raises(ValueError, match=r"has no split 'validation'"):
        load_captions(folder / "train.jsonl", split="validation")


def test_a_saved_dataset_with_the_images_inside(folder):
    saved = datasets.Dataset.from_dict(
        {"picture": [str(folder / row["image"]) for row in ROWS], "text": ["Red.", "Clear."]}
    ).cast_column("picture", datasets.Image())
    datasets.DatasetDict({"train": saved}).save_to_disk(folder / "saved")

    dataset = load_captions(folder / "saved", image_column="picture")

    assert dataset[0]["image"].size == (60, 40)
    assert dataset[1]["reference"] == "Clear."
    with pytest.raises(ValueError, match=r"has no split 'test', only train"):
        load_captions(folder / "saved", split="test")


def test_a_folder_of_parquet_files_is_a_dataset_of_that_layout(folder, tmp_path):
    rows = datasets.Dataset.from_dict(
        {"image": [str(ASTRONAUT)], "caption": ["An astronaut."]}
    ).cast_column("image", datasets.Image())
    (folder / "hub").mkdir()
    rows.to_parquet(folder / "hub" / "train-00000.parquet")

    assert load_captions(folder / "hub")[0]["reference"] == "An astronaut."


def test_prompts_per_row_and_one_prompt_for_all(folder):
    rows = [{**ROWS[0], "prompt": "What is this?"}, {**ROWS[1], "prompt": "Look."}]
    file = write_jsonl(folder / "train.jsonl", rows)

    assert load_captions(file)[1]["prompt"] == [{"role": "user", "content": "Look."}]
    assert load_captions(file, prompt="Caption it.")[1]["prompt"][0]["content"] == "Caption it."


def test_images_alone_are_enough_where_no_reference_is_asked_for(folder):
    dataset = load_captions(folder, references=False)
    assert dataset.column_names == ["prompt", "image", "file_name"]


def test_a_shuffled_slice_still_bounds_its_images_and_crosses_processes(folder):
    file = write_jsonl(folder / "train.jsonl", [{**ROWS[0], "image": str(ASTRONAUT)}] * 3)
    dataset = load_captions(file, max_pixels=28 * 28 * 64).shuffle(seed=1).select([0, 2])

    assert pickle.loads(pickle.dumps(dataset))[0]["image"].size == (224, 224)


# --- photographs ---


def test_a_photograph_is_bounded_by_the_rule_of_its_model(tmp_path):
    """512 x 512 under 256 tokens of 28 x 28: sqrt(512 * 512 / 200704) = 1.143, 512 / 1.143 =
    448."""
    file = write_jsonl(
        tmp_path / "a.jsonl", [{"image": str(ASTRONAUT), "reference": "Eileen Collins."}]
    )
    assert load_captions(file)[0]["image"].size == (512, 512)
    assert load_captions(file, max_pixels=256 * 28 * 28)[0]["image"].size == (448, 448)


def test_a_photograph_taken_with_the_camera_on_its_side_comes_upright(tmp_path):
    """EXIF orientation 6: the stored rows are the picture's columns, to be turned clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(ROCKET)  # 640 x 427, dark sky on top, fire at the bottom
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    assert Image.open(tmp_path / "turned.jpg").size == (427, 640)

    file = write_jsonl(tmp_path / "a.jsonl", [{"image": "turned.jpg", "reference": "A rocket."}])
    image = load_captions(file)[0]["image"]

    assert image.size == (640, 427)
    for corner in [(3, 3), (636, 3), (3, 423), (636, 423)]:
        x, y = corner
        expected, got = np.asarray(upright, int)[y, x], np.asarray(image, int)[y, x]
        assert abs(expected - got).max() < 12


def test_a_bound_below_four_tokens_is_refused(folder):
    with pytest.raises(ValueError, match=r"max_pixels must be at least 3136 .* got 100"):
        load_captions(write_jsonl(folder / "train.jsonl", ROWS), max_pixels=100)


# --- images that cannot be trained on ---


def test_bad_images_are_named_by_row_line_and_path(folder):
    (folder / "pictures" / "empty.png").write_bytes(b"")
    file = folder / "train.jsonl"
    lines = [
        json.dumps(ROWS[0]),
        "",
        json.dumps({**ROWS[0], "image": "pictures/gone.png"}),
        json.dumps({**ROWS[0], "image": "pictures/empty.png"}),
        json.dumps({"reference": "No image at all."}),
    ]
    file.write_text("\n".join(lines), encoding="utf-8")

    with pytest.raises(ValueError, match=r"needs an image that can be read, but 3 do not") as error:
        load_captions(file)

    _, gone, empty, missing, way_out = str(error.value).splitlines()
    assert gone.strip() == (
        f"{file}:3: the image {folder}/pictures/gone.png: there is no such file"
    )
    assert empty.startswith(f"  {file}:4: the image {folder}/pictures/empty.png: the file is empty")
    assert missing.endswith(":5: the image is missing")
    assert way_out == "Leave these rows out, or fix the files."


def test_only_the_first_five_of_many_problems_are_listed(folder):
    rows = [{**ROWS[0], "image": f"gone-{number}.png"} for number in range(1200)]
    many = r"but 1200 do not have one[\s\S]*gone-4[\s\S]*and 1195 more"
    with pytest.raises(ValueError, match=many):
        load_captions(write_jsonl(folder / "train.jsonl", rows))


# --- other bad input ---


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROWS[0], "reference": " \n"}], r"train\.jsonl:1: the reference is empty"),
        ([{**ROWS[0], "reference": 7}], r"train\.jsonl:1: the reference is a int, not text"),
        (
            [{"image": "pictures/red.png", "words": "x"}],
            r"no reference column \(reference, caption, text\): its columns are image, "
            r"words\. "
            r"Name it with reference_column",
        ),
        ([{"picture": "a.png"}], r"has no image column \(image, file_name, image_path"),
        ([{**ROWS[0], "prompt": ""}], r"train\.jsonl:1: the prompt is empty"),
        (
            [{**ROWS[0], "completions": "x"}],
            r"has the columns completions, but TRL reserves these names",
        ),
        ([{**ROWS[0], "id": "one"}, ROWS[1]], r"the values of 'id' have different types"),
        ([], r"is empty: it must have one row per line"),
    ],
)
def test_a_bad_row_is_one_clear_error(folder, rows, message):
    with pytest.raises(ValueError, match=message):
        load_captions(write_jsonl(folder / "train.jsonl", rows))


def test_a_line_that_is_no_json_object(folder):
    (folder / "a.jsonl").write_text('{"image": \n')
    with pytest.raises(ValueError, match=r"a\.jsonl:1: not JSON"):
        load_captions(folder / "a.jsonl")
    (folder / "a.jsonl").write_text('\n["image"]\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: a row must be a JSON object, not list"):
        load_captions(folder / "a.jsonl")


def test_a_column_that_was_named_must_exist(folder):
    file = write_jsonl(folder / "train.jsonl", ROWS)
    with pytest.raises(ValueError, match=r"no column 'caption' for reference_column.*image, refer"):
        load_captions(file, reference_column="caption")
    with pytest.raises(ValueError, match=r"no column 'photo' for image_column"):
        load_captions(file, image_column="photo")


def test_a_missing_sidecar_is_named(folder):
    (folder / "pictures" / "red.txt").write_text("A red board.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"clear\.png: the reference is empty"):
        load_captions(folder)


def test_nothing_there(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"File or folder not found: .*gone\.jsonl. Pass a JSONL"
    ):
        load_captions(tmp_path / "gone.jsonl")
    with pytest.raises(ValueError, match=r"contains no captions: it needs a metadata\.jsonl"):
        load_captions(tmp_path)
