"""Encodes images for a judge: the image the policy saw ([`~data.images.open_image`]).

Small pictures and drawings are sent as PNG, because JPEG would blur the details a judge has to see;
photographs are sent as JPEG, which is ten times smaller.
"""

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import Any

from trl_balcap.data.images import open_image

__all__ = ["MAX_PIXELS", "EncodedImage", "encode_image"]

MAX_PIXELS = 1280 * 28 * 28
"""Default bound: 1280 visual tokens of a Qwen2.5-VL, about a megapixel."""

_SMALL = 256 * 256  # pixels up to which PNG is small anyway
_FEW_COLOURS = 1024  # a drawing has fewer, a photograph more
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class EncodedImage:
    """An image ready to send: its data URL, and a hash that identifies it everywhere else."""

    url: str
    digest: str

    def __repr__(self) -> str:
        return f"EncodedImage(digest={self.digest!r})"


def encode_image(image: Any, max_pixels: int = MAX_PIXELS) -> EncodedImage:
    """
    Encode an image for a judge.

    Args:
        image (`PIL.Image.Image`, `str`, `PathLike`, `bytes` or `Mapping`):
            As for [`~data.images.open_image`].
        max_pixels (`int`, *optional*, defaults to `1003520`):
            Maximum width times height.

    Returns:
        [`EncodedImage`]

    Raises:
        [`~data.images.ImageError`]: if there is no image, or it cannot be read.

    Example:

    ```python
    >>> from PIL import Image
    >>> encode_image(Image.new("RGB", (84, 84), "red")).url[:22]
    'data:image/png;base64,'

    ```
    """
    picture = open_image(image, max_pixels)
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
