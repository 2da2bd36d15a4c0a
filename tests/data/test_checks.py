"""What the trainer asks of a dataset before it loads a model."""

import datasets
import pytest
from PIL import Image

from tests.data.photos import ASTRONAUT, ROCKET, ROWS, cut, write_jsonl
from trl_balcap.data import check_columns, check_size, load_captions

NEEDS = {
    "precision_reward": ("image",),
    "recall_reward": ("reference",),
    "the length gate": ("reference",),
}


def test_a_loaded_dataset_has_all_that_the_rewards_need(folder):
    dataset = load_captions(write_jsonl(folder / "train.jsonl", ROWS))
    streamed = dataset.with_format(None).to_iterable_dataset()
    for rows in (dataset, streamed, [dataset[0]]):
        assert check_columns(rows, NEEDS) is None


def test_no_needs_no_complaint():
    dataset = datasets.Dataset.from_dict({"prompt": ["Say hello."]})
    assert check_columns(dataset, {"length_reward": ()}) is None


@pytest.mark.parametrize("lazy", [False, True])
def test_a_missing_column_names_who_needs_it(lazy):
    dataset = datasets.Dataset.from_dict({"prompt": ["x"], "caption": ["A dog."]})
    dataset = dataset.to_iterable_dataset() if lazy else dataset

    with pytest.raises(ValueError, match=r"^recall_reward needs the column 'reference', but eval_"):
        check_columns(dataset, {"recall_reward": ("reference",)}, name="eval_dataset")
    with pytest.raises(ValueError, match=r"needs the column 'image' \(or 'images'\).* caption"):
        check_columns(dataset, {"precision_reward": ("image",)})


@pytest.mark.parametrize("lazy", [False, True])
def test_an_empty_reference_names_its_row_and_all_who_need_it(lazy):
    dataset = datasets.Dataset.from_dict({"reference": ["A dog.", "", None]})
    dataset = dataset.to_iterable_dataset() if lazy else dataset

    with pytest.raises(ValueError, match=r"^recall_reward, the length gate needs a ref") as error:
        check_columns(dataset, {name: NEEDS[name] for name in ("recall_reward", "the length gate")})
    assert "row 1: the reference is empty" in str(error.value)
    assert "row 2: the reference is empty" in str(error.value)


def test_an_unreadable_image_names_its_row_and_path(folder):
    broken = cut(ASTRONAUT, 0.3, folder / "broken.png")
    dataset = datasets.Dataset.from_dict({"image": [str(ASTRONAUT), str(broken)]}).cast_column(
        "image", datasets.Image()
    )
    with pytest.raises(ValueError, match=r"row 1: the image .*broken\.png: .*truncated"):
        check_columns(dataset, {"precision_reward": ("image",)})
    with pytest.raises(ValueError, match=r"row 1: the image .*broken\.png: .*truncated"):
        check_columns(dataset.to_iterable_dataset(), {"precision_reward": ("image",)})


def test_images_as_lists_bytes_and_gaps():
    good = {"path": None, "bytes": ASTRONAUT.read_bytes()}
    bad = {"path": None, "bytes": ROCKET.read_bytes()[:5000]}
    features = datasets.Features({"images": datasets.List(datasets.Image())})
    needs = {"precision_reward": ("image",)}

    check_columns(datasets.Dataset.from_dict({"images": [[good]]}, features=features), needs)
    for images, problem in [([good, bad], "the image: .*truncated"), ([], "the image is missing")]:
        dataset = datasets.Dataset.from_dict({"images": [[good], images]}, features=features)
        with pytest.raises(ValueError, match=rf"row 1: {problem}"):
            check_columns(dataset, needs)


def test_a_stream_is_read_only_as_far_as_asked():
    rows = iter([{"reference": "A dog."}] * 3 + [{"reference": ""}])
    check_columns(rows, {"recall_reward": ("reference",)}, first_rows=3)
    assert next(rows) == {"reference": ""}


def test_a_dataset_without_rows():
    with pytest.raises(ValueError, match=r"^train_dataset has no rows"):
        check_columns([], {"recall_reward": ("reference",)})


@pytest.mark.parametrize("lazy", [False, True])
def test_images_far_away_are_refused_and_never_fetched(lazy):
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"path": "https://nowhere.invalid/a.png", "bytes": None}]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset = dataset.to_iterable_dataset() if lazy else dataset
    with pytest.raises(ValueError, match=r"row 0: .*a\.png: it is a URL, and URLs are not fetched"):
        check_columns(dataset, {"precision_reward": ("image",)})
    check_columns(dataset, {"precision_reward": ("image",)}, allow_urls=True)


# ---- rows that are made when they are read -----------------------------------------------------


def test_a_transform_may_make_the_columns(folder):
    """`GRPOTrainer` trains on such a dataset: what counts is what a row gives when it is read."""
    stored = datasets.Dataset.from_dict({"path": [str(ASTRONAUT)] * 3, "words": ["A", "B", " "]})

    def opened(batch):
        return {"image": [Image.open(p) for p in batch["path"]], "reference": batch["words"]}

    lazy = stored.with_transform(opened)
    check_columns(lazy, NEEDS, first_rows=2)
    with pytest.raises(ValueError, match="row 2: the reference is empty"):
        check_columns(lazy, NEEDS)
    with pytest.raises(ValueError, match="needs the column 'reference'"):
        check_columns(stored.with_transform(lambda batch: {"image": batch["path"]}), NEEDS)


@pytest.mark.parametrize("mapped_after", [False, True])
def test_a_shuffle_buffer_is_not_filled_to_look_at_some_rows(mapped_after):
    pulled = []

    def rows():
        for number in range(5000):
            pulled.append(number)
            yield {"reference": "A dog."}

    stream = datasets.IterableDataset.from_generator(rows).shuffle(seed=0, buffer_size=2000)
    if mapped_after:
        stream = stream.map(lambda row: {**row, "prompt": "Describe."})
    check_columns(stream, {"recall_reward": ("reference",)}, first_rows=8)
    assert len(pulled) < 20
    assert len(list(stream.take(3))) == 3  # the stream itself is as it was
    assert len(pulled) > 2000


# ---- too few rows ------------------------------------------------------------------------------


def test_fewer_rows_than_a_generation_batch_takes():
    """9 photographs, 8 completions each: at most 72 of the 128 that the recipe asks for."""
    with pytest.raises(ValueError, match=r"has 9 rows.* needs 16 \(generation_") as told:
        check_size(9, generation_batch_size=128, num_generations=8, global_batch_size=8)
    assert "set generation_batch_size=72 (or steps_per_generation=9), or less" in str(told.value)
    check_size(9, generation_batch_size=72, num_generations=8, global_batch_size=8)
    check_size(16, generation_batch_size=128, num_generations=8, global_batch_size=8)


def test_rows_too_few_for_the_devices():
    """64 completions a step of all devices, 8 for each prompt: 8 rows at the least."""
    with pytest.raises(ValueError, match=r"lower per_device_train_batch_size.*need 8 rows"):
        check_size(5, generation_batch_size=128, num_generations=8, global_batch_size=64)
    with pytest.raises(ValueError, match=r"^eval_dataset has no rows"):
        check_size(0, generation_batch_size=8, num_generations=8, name="eval_dataset")
    with pytest.raises(ValueError, match=r"^train_dataset has no rows"):
        check_columns(datasets.Dataset.from_dict({"image": []}), NEEDS)
