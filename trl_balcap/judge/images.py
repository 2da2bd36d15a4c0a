"""Images as a judge is sent them: upright, RGB, bounded in pixels, encoded once.

Small pictures and drawings go as PNG, because JPEG blurs exactly what a judge has to see there;
photographs go as JPEG, which is ten times smaller.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 1280 * 28 * 28
"""Default bound: 1280 visual tokens of a Qwen2.5-VL, about a megapixel."""

_SMALL = 256 * 256  # pixels up to which PNG is small anyway
_FEW_COLOURS = 1024  # a drawing has fewer, a photograph more
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is sent: its data URL, and the hash that stands for it everywhere else."""

    url: str
    digest: str

    def __repr__(self) -> str:
        return f"EncodedImage(digest={self.digest!r})"


def open_image(image: Any) -> Image.Image:
    """The PIL image of what a dataset row may hold: an image, a path, bytes, or a `datasets` dict.

    Raises:
        `ValueError`: if it is none of these, cannot be read, or has no pixels.
    """
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        image = io.BytesIO(image)
    if isinstance(image, str | PathLike | io.BytesIO):
        try:
            image = Image.open(image)
        except UnidentifiedImageError as error:
            raise ValueError(f"cannot read the image: {error}") from error
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"an image must be a PIL image, a path, bytes or a datasets dict, got {type(image)}"
        )
    if not image.width or not image.height:
        raise ValueError(f"an image of {image.width}x{image.height} pixels shows nothing")
    return image


def encode_image(image: Any, max_pixels: int = MAX_PIXELS) -> EncodedImage:
    """Encode an image for a judge, at most `max_pixels` large, aspect ratio kept.

    ```python
    >>> encode_image(Image.new("RGB", (84, 84), "red")).url[:22]
    'data:image/png;base64,'

    ```
    """
    picture = upright_rgb(open_image(image))
    if picture.width * picture.height > max_pixels:
        scale = (max_pixels / (picture.width * picture.height)) ** 0.5
        size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small = picture.width * picture.height <= _SMALL
    if small or picture.getcolors(_FEW_COLOURS) is not None:
        kind = "png"
        picture.save(buffer, "PNG")
    else:
        kind = "jpeg"
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    data = buffer.getvalue()
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return EncodedImage(url, hashlib.blake2b(data, digest_size=16).hexdigest())


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn as the EXIF orientation says, put transparency on white, convert to RGB."""
    # exif_transpose writes the tag back without it, and chokes on broken EXIF only there.
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        # More than 8 bits a channel: convert() would clip at 255 instead of scaling.
        low, high = image.getextrema()
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        image = image.convert("F").point(lambda v: (v - low) * (255 / max(high - low, 1e-9)))
        return image.convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def pixel_digest(image: Image.Image) -> str:
    """A hash of the raw pixels: the G rollouts of a prompt carry G equal copies of its image."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{image.mode} {image.size} {image.getexif().get(0x0112)}".encode())
    digest.update(repr(image.getpalette()).encode())
    digest.update(repr(image.info.get("transparency")).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
