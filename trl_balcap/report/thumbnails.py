"""Thumbnails of images, and the digests by which verdict rows refer to them."""

import hashlib
import io
from typing import Any, NamedTuple

from PIL import Image

from trl_balcap.data.images import DEFAULT_MAX_PIXELS, open_image

__all__ = ["Thumbnail", "image_digest", "thumbnail"]

SIDE = 448  # pixels of the longer side: large enough to check a verdict by eye
_SMALL = 192  # up to here a picture is kept as it is, pixel by pixel


class Thumbnail(NamedTuple):
    """
    A thumbnail of an image.

    Args:
        data (`bytes`):
            A PNG or JPEG file.
        width, height (`int`):
            Its size in pixels.
    """

    data: bytes
    width: int
    height: int

    @property
    def media_type(self) -> str:
        """`"image/png"` or `"image/jpeg"`."""
        return "image/png" if self.data.startswith(b"\x89PNG") else "image/jpeg"


def image_digest(image: Image.Image) -> str:
    """
    A digest of an image's pixels as used in training: upright, RGB, limited in size. The same
    picture has the same digest in a run and in a folder of scores, whatever its file.

    Example:

    ```python
    >>> image_digest(Image.new("RGB", (2, 2), "red")) == image_digest(Image.new("RGB", (2, 2)))
    False

    ```
    """
    picture = open_image(image, DEFAULT_MAX_PIXELS)
    digest = hashlib.blake2b(repr(picture.size).encode(), digest_size=16)
    digest.update(picture.tobytes())
    return digest.hexdigest()


def thumbnail(image: Image.Image) -> Thumbnail:
    """
    The image upright, in RGB, at most 448 pixels wide and high.

    Drawings and other small pictures stay as they are (PNG); photographs become JPEG, of about
    25 KB each.

    Example:

    ```python
    >>> thumbnail(Image.new("RGB", (1000, 500)))[1:]
    (448, 224)

    ```
    """
    picture = open_image(image, DEFAULT_MAX_PIXELS)
    buffer = io.BytesIO()
    if max(picture.size) <= _SMALL:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        # Not WebP: 30% smaller, and ten times slower to write, in the middle of training.
        picture.save(buffer, "JPEG", quality=80)
    return Thumbnail(buffer.getvalue(), *picture.size)


def opened(image: Any) -> Image.Image:
    """The image, or the file at a path, undecoded; the functions above call [`open_image`]."""
    return image if isinstance(image, Image.Image) else Image.open(image)
