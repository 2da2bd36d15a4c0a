"""Captions to score that are in a dataset, beside their images."""

from pathlib import Path

from trl_balcap.captioning.listing import image_column, stored_files
from trl_balcap.data.folders import written_path
from trl_balcap.data.rows import json_line
from trl_balcap.data.stored import BUILDERS, is_dataset
from trl_balcap.data.streams import open_stream

__all__ = ["listed_captions"]

COLUMNS = ("caption", "reference")


def listed_captions(source: str | Path, out: Path) -> Path:
    """
    A list of the captions of a dataset: `OUT/captions.jsonl`, with the images in `OUT/images`. The
    dataset is read as a stream, and images that are there already stay.

    Args:
        source (`str` or `Path`):
            A dataset with images and captions, in Parquet, in WebDataset shards or saved, or
            anything else, which is returned as it is.
        out (`Path`):
            Folder of the scores.

    Raises:
        `ValueError`: if the dataset has no column of images, or cannot be read to its end.
    """
    path = Path(source)
    if path.suffix not in BUILDERS and not (path.is_dir() and is_dataset(path)):
        return path
    stream = open_stream(source, "train")
    column = image_column(stream.columns)
    out.mkdir(parents=True, exist_ok=True)
    listed = out / "captions.jsonl"
    temporary = listed.with_name(listed.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        for identity, row in stream.rows():
            [image, *_] = stored_files(row.get(column), stream.folder, out / "images", identity)
            texts = {name: row[name] for name in COLUMNS if row.get(name) is not None}
            file.write(json_line({"id": identity, "image": written_path(image, listed), **texts}))
    temporary.replace(listed)
    return listed
