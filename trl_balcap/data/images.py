"""
The one way to open an image: upright, in RGB, and within a maximum number of pixels. Training,
captioning, planning and judging all use it, so the judge sees what the policy saw.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "MIN_MAX_PIXELS",
    "ImageError",
    "NoImageError",
    "bounded_size",
    "check_name",
    "image_problem",
    "open_image",
    "reading",
    "stored_content",
]

ImageSource: TypeAlias = "Image.Image | str | PathLike[str] | bytes | pa.Buffer | Mapping[str, Any]"
"""An image, its path, its bytes, or the `{"bytes": ..., "path": ...}` of a `datasets` row."""

IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
)
"""Extensions of image files when searching a folder."""

_HEIC = (".heic", ".heif")

# 28 px: one visual token of Qwen2-VL and Qwen2.5-VL (patch 14, merged 2 by 2).
_FACTOR = 28
_MAX_RATIO = 200  # of qwen-vl-utils, whose import takes seconds; a test keeps them equal
# The smallest maximum for which qwen-vl-utils' rule is defined (4 visual tokens).
MIN_MAX_PIXELS = 4 * _FACTOR**2
# 512 visual tokens: a 640 x 480 COCO photo keeps its size. The paper's value is unknown.
DEFAULT_MAX_PIXELS = 512 * _FACTOR**2

# How a complete file ends. A file that ends differently is decoded fully before it is trusted.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageError(ValueError):
    """An image that cannot be used: missing, broken, without pixels, or not an image."""


class NoImageError(ImageError):
    """There is no image: `None`, an empty list, or an empty path."""


def open_image(source: ImageSource, max_pixels: int | None = None) -> Image.Image:
    """
    Open an image: turned upright by its EXIF orientation, in RGB, and within `max_pixels`.

    Transparent areas become white. Images with more than 8 bits per channel are scaled so that the
    darkest pixel is black and the lightest white. Animations give their first frame.

    Args:
        source (`PIL.Image.Image`, `str`, `PathLike`, `bytes`, `pyarrow.Buffer` or `Mapping`):
            An image, its path, its bytes, or the `{"bytes": ..., "path": ...}` of a `datasets` row.
        max_pixels (`int`, *optional*):
            Maximum width times height, see [`bounded_size`]. `None` keeps the size.

    Returns:
        `PIL.Image.Image`: a loaded RGB image, never the object passed in.

    Raises:
        [`ImageError`]: if there is no image, it cannot be read, has no pixels, or is a URL.
        `ValueError`: if `max_pixels` is below 3136.

    Example:

    ```python
    >>> open_image(Image.new("RGBA", (2000, 1000)), max_pixels=401408).size
    (896, 448)
    >>> open_image(Image.new("LA", (4, 4))).getpixel((0, 0))
    (255, 255, 255)

    ```
    """
    if max_pixels is not None:
        bounded_size(1, 1, max_pixels)  # raise here, since a bad max_pixels is not an ImageError
    with reading(source):
        content = stored_content(source)
        if isinstance(content, Image.Image):
            return _bounded(_upright_rgb(content), max_pixels)
        with _open(content) as file, Image.open(file) as image:
            return _bounded(_upright_rgb(image), max_pixels)


def stored_content(source: ImageSource) -> Any:
    """The image, path or bytes in a dataset row's value."""
    if not isinstance(source, Mapping):
        return source
    content = source.get("bytes")
    return source.get("path") if content is None else content


@contextlib.contextmanager
def reading(source: ImageSource) -> Iterator[None]:
    """Turn any error about an image in this block into an [`ImageError`] with its path."""
    try:
        yield
    except NoImageError:
        raise
    except Exception as error:
        path = source.get("path") if isinstance(source, Mapping) else source
        named = f"the image {fspath(path)}: " if isinstance(path, str | PathLike) and path else ""
        raise ImageError(f"{named}{_said(error, path)}") from error


def bounded_size(width: int, height: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """
    The size at which an image is used: its own if it has at most `max_pixels` pixels, otherwise the
    result of qwen-vl-utils' `smart_resize` (both sides multiples of 28, with roughly the same
    aspect ratio).

    Args:
        width (`int`): Width in pixels.
        height (`int`): Height in pixels.
        max_pixels (`int`, *optional*, defaults to `401408`): Maximum width times height.

    Returns:
        `tuple[int, int]`: Width and height in pixels.

    Raises:
        `ValueError`: if `max_pixels` is below 3136, or the aspect ratio is above 200 (a limit of
            qwen-vl-utils).

    Example:

    ```python
    >>> bounded_size(640, 480)
    (640, 480)
    >>> bounded_size(4032, 3024)
    (728, 532)

    ```
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int):
        raise ValueError(f"max_pixels must be a whole number such as 401408, got {max_pixels!r}.")
    if max_pixels < MIN_MAX_PIXELS:
        raise ValueError(
            f"max_pixels must be at least {MIN_MAX_PIXELS} (4 visual tokens of 28 x 28 pixels), "
            f"got {max_pixels}."
        )
    if width * height <= max_pixels:
        return width, height
    from qwen_vl_utils.vision_process import smart_resize  # imports torch

    new_height, new_width = smart_resize(height, width, factor=_FACTOR, max_pixels=max_pixels)
    # smart_resize rounds the short side of a very long image down to 0.
    return max(new_width, _FACTOR), max(new_height, _FACTOR)


def check_name(path: str) -> None:
    """
    Check that a path can be stored in a dataset, which only takes UTF-8.

    Raises:
        `ValueError`: if it cannot.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not UTF-8, which datasets need; rename the file") from error


def image_problem(source: "str | PathLike[str] | bytes | pa.Buffer") -> str | None:
    """
    Why an image file cannot be used for training, or `None` if it can.

    Reads the header, and the last bytes of a JPEG or PNG. A file is only decoded if it does not end
    as its format should (truncated, or another format), so checking a hundred thousand files takes
    20 seconds.

    Args:
        source (`str`, `PathLike`, `bytes` or `pyarrow.Buffer`): Path of the file, or its content.

    Returns:
        `str` or `None`: the reason, worded to follow "the image ...: ".

    Example:

    ```python
    >>> image_problem(b"")
    'the file is empty'
    >>> image_problem("no-such-file.png")
    'there is no such file'

    ```
    """
    try:
        if isinstance(source, str | PathLike):
            check_name(fspath(source))
        with _open(source) as file:
            return _file_problem(file)
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever broken bytes make
        return _said(error, source)


# ---- opening -----------------------------------------------------------------------------------


def _open(source: Any) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if source is None or (isinstance(source, str) and not source):
        raise NoImageError("the image is missing")
    if not isinstance(source, str | PathLike):
        import pyarrow as pa  # slow to import, and only needed for datasets

        if isinstance(source, pa.Buffer):
            return pa.BufferReader(source)  # reads the header in place; the bytes are not copied
        raise ImageError(
            "an image must be a PIL image, a path, bytes or a datasets dict, got "
            f"{type(source).__name__}"
        )
    path = Path(source)
    # Opening a pipe or device would block; open() reports missing paths.
    if path.exists() and not path.is_file():
        raise OSError("it is a folder" if path.is_dir() else "it is not a regular file")
    if "://" in fspath(source):
        raise OSError("it is a URL, and URLs are not fetched")
    return path.open("rb")


def _said(error: Exception, source: Any) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        if isinstance(source, str | PathLike) and fspath(source).lower().endswith(_HEIC):
            return "it is a HEIC photograph, which Pillow cannot read; convert it to JPEG"
        return "it is not an image that Pillow can read"
    return str(error) or type(error).__name__


def _file_problem(file: BinaryIO) -> str | None:
    length = file.seek(0, io.SEEK_END)
    if length == 0:
        return "the file is empty"
    file.seek(0)
    image = Image.open(file)
    width, height = image.size
    if min(width, height) == 0:
        return f"its size is {width} x {height} pixels"
    if max(width, height) > _MAX_RATIO * min(width, height):
        ratio = math.ceil(max(width, height) / min(width, height))
        return f"its aspect ratio is {ratio} to 1, but processors take at most {_MAX_RATIO} to 1"
    end = _ENDS.get(image.format or "")
    if end is not None:
        file.seek(max(0, length - 64))
        if file.read().rstrip(b"\0\r\n ").endswith(end):
            return None
        file.seek(0)
        image = Image.open(file)
    image.load()
    return None


# ---- upright, RGB, bounded ---------------------------------------------------------------------


def _upright_rgb(image: Image.Image) -> Image.Image:
    if not image.width or not image.height:
        raise ImageError(f"an image of {image.width} x {image.height} pixels is empty")
    image = ImageOps.exif_transpose(image)  # a copy, even if there is nothing to rotate
    if image.mode[0] == "I" or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode == "La":  # premultiplied, which Pillow converts by way of LA
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale by the values in the image: 10, 12 or 14-bit cameras only use part of 16 bits."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))  # (H, W)
    low, high = values.min(), values.max()
    if low == high:  # nothing to scale by: use the format's own range, if it has one
        scaled = values / 257 if image.mode.startswith("I;16") else values
    else:
        scaled = (values - low) * (255 / (high - low))
    return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))


def _bounded(image: Image.Image, max_pixels: int | None) -> Image.Image:
    if max_pixels is None:
        return image
    size = bounded_size(*image.size, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
