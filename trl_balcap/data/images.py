"""An image file as training needs it: upright, RGB, bounded in pixels, and known to be readable."""

import io
import math
from os import PathLike
from typing import BinaryIO

import pyarrow as pa
from PIL import Image, ImageOps
from qwen_vl_utils.vision_process import MAX_RATIO, smart_resize, to_rgb

__all__ = ["DEFAULT_MAX_PIXELS", "MIN_MAX_PIXELS", "bounded_image", "bounded_size", "image_problem"]

# 28 px: one visual token of Qwen2-VL and Qwen2.5-VL (patch 14, merged 2 by 2).
_FACTOR = 28
# The smallest bound under which qwen-vl-utils' rule is defined (4 visual tokens).
MIN_MAX_PIXELS = 4 * _FACTOR**2
# 512 visual tokens: a 640 x 480 COCO photo stays as it is. The paper's value is not known.
DEFAULT_MAX_PIXELS = 512 * _FACTOR**2

# What a complete file ends with. A file that does not is decoded in full before it is trusted.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


def bounded_size(width: int, height: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """
    The size that an image is stored at: its own where it has at most `max_pixels` pixels, otherwise
    what qwen-vl-utils' `smart_resize` gives (both sides multiples of 28, the aspect ratio kept as
    far as that allows).

    Args:
        width (`int`): Width in pixels.
        height (`int`): Height in pixels.
        max_pixels (`int`, *optional*, defaults to `401408`): Bound on width times height.

    Returns:
        `tuple[int, int]`: Width and height in pixels.

    Raises:
        ValueError: `max_pixels` below 3136, or an aspect ratio above 200 (the rule of
            qwen-vl-utils).

    Example:
        >>> bounded_size(640, 480)
        (640, 480)
        >>> bounded_size(4032, 3024)
        (728, 532)
    """
    if max_pixels < MIN_MAX_PIXELS:
        raise ValueError(
            f"max_pixels must be at least {MIN_MAX_PIXELS} (4 visual tokens of 28 x 28 pixels), "
            f"got {max_pixels}."
        )
    if width * height <= max_pixels:
        return width, height
    new_height, new_width = smart_resize(height, width, factor=_FACTOR, max_pixels=max_pixels)
    # smart_resize rounds the short side of a very long image down to 0.
    return max(new_width, _FACTOR), max(new_height, _FACTOR)


def bounded_image(image: Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """
    The image upright (its EXIF orientation applied), in RGB (transparency on white) and within
    `max_pixels`.

    Args:
        image (`PIL.Image.Image`): Any image that Pillow opened.
        max_pixels (`int`, *optional*, defaults to `401408`): Bound on width times height.

    Returns:
        `PIL.Image.Image`: An RGB image; see [`bounded_size`] for its size.

    Example:
        >>> bounded_image(Image.new("RGBA", (2000, 1000))).size
        (896, 448)
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image = to_rgb(image)
    size = bounded_size(*image.size, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def image_problem(source: str | PathLike[str] | bytes | pa.Buffer) -> str | None:
    """
    Why an image file cannot be trained on, or `None` where it can.

    Reads the header, and the last bytes of a JPEG or PNG. Only a file that does not end as its
    format ends (cut off, or of another format) is decoded, so that a hundred thousand files are
    checked in 20 seconds.

    Args:
        source (`str`, `PathLike`, `bytes` or `pyarrow.Buffer`): Path of the file, or its content.

    Returns:
        `str` or `None`: The reason, to be put behind "the image ...: ".

    Example:
        >>> image_problem(b"")
        'the file is empty'
        >>> image_problem("no-such-file.png")
        'there is no such file'
    """
    try:
        with _open(source) as file:
            return _file_problem(file)
    except FileNotFoundError:
        return "there is no such file"
    except IsADirectoryError:
        return "it is a folder"
    except Image.UnidentifiedImageError:
        return "it is not an image that Pillow can read"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises each of these for one kind of broken file or another.
        return str(error)


def _open(source: str | PathLike[str] | bytes | pa.Buffer) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, pa.Buffer):
        return pa.BufferReader(source)  # reads the header in place; the bytes are not copied
    return open(source, "rb")


def _file_problem(file: BinaryIO) -> str | None:
    length = file.seek(0, io.SEEK_END)
    if length == 0:
        return "the file is empty"
    file.seek(0)
    image = Image.open(file)
    width, height = image.size
    if min(width, height) == 0:
        return f"its size is {width} x {height} pixels"
    if max(width, height) > MAX_RATIO * min(width, height):
        ratio = math.ceil(max(width, height) / min(width, height))
        return (
            f"its sides are {ratio} to 1, and the vision processors take at most {MAX_RATIO} to 1"
        )
    end = _ENDS.get(image.format or "")
    if end is not None:
        file.seek(max(0, length - 64))
        if file.read().rstrip(b"\0\r\n ").endswith(end):
            return None
        file.seek(0)
        image = Image.open(file)
    image.load()
    return None
