"""Images of a batch, encoded once however many rollouts show them."""

import asyncio
import hashlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image

from trl_balcap.data.images import NoImageError, reading, stored_content
from trl_balcap.judge.images import EncodedImage, encode_image

_IMAGES_KEPT = 256  # those used least recently go first


class ImageStore:
    """
    Encoded images by their content. Encoding runs in threads of its own.

    An image is known by what it shows and not by the object that holds it: one that was painted
    over is another image, and the G equal copies of a prompt's image are one.
    """

    def __init__(self, max_pixels: int):
        self._max_pixels = max_pixels
        self._by_content: OrderedDict[str, asyncio.Future[EncodedImage]] = OrderedDict()
        self._under_way: dict[int, asyncio.Future[EncodedImage]] = {}  # by id, while one waits
        self._encoders = ThreadPoolExecutor(2, "trl-balcap-images")

    async def encode(self, image: Any) -> tuple[EncodedImage, ...]:
        """
        The image (or list of images) as sent.

        Raises:
            [`~data.images.NoImageError`]: if there is none.
            [`~data.images.ImageError`]: if one of them cannot be read.
        """
        images = image if isinstance(image, list | tuple) else [image]
        if not images:
            raise NoImageError("the image is missing")
        return tuple(await asyncio.gather(*(self._encoded(one) for one in images)))

    async def _encoded(self, image: Any) -> EncodedImage:
        key = id(image)
        future = self._under_way.get(key)
        if future is None:
            # The task holds the image, so its id is no other's as long as it is under way.
            future = self._under_way[key] = asyncio.ensure_future(self._encode(image))
            future.add_done_callback(lambda _: self._under_way.pop(key))
        return await asyncio.shield(future)

    async def _encode(self, image: Any) -> EncodedImage:
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._encoders, _content_digest, image)
        future = self._by_content.get(content)
        if future is None:
            future = self._by_content[content] = asyncio.ensure_future(
                loop.run_in_executor(self._encoders, encode_image, image, self._max_pixels)
            )
            if len(self._by_content) > _IMAGES_KEPT:
                self._by_content.popitem(last=False)
        self._by_content.move_to_end(content)
        return await asyncio.shield(future)


def _content_digest(image: Any) -> str:
    """A hash of all that an image's look depends on; of a file its bytes, undecoded."""
    digest = hashlib.sha256()  # in hardware nearly everywhere, where BLAKE2 is not
    with reading(image):
        content = stored_content(image)
        if isinstance(content, Image.Image):
            orientation = content.getexif().get(0x0112)
            transparency = content.info.get("transparency")
            palette = content.getpalette(None)
            how = (content.mode, content.size, orientation, palette, transparency)
            digest.update(repr(how).encode())
            digest.update(content.tobytes())
        elif isinstance(content, str | PathLike):
            path = Path(content)
            # What is no file is named by open_image, which never waits for a pipe.
            digest.update(path.read_bytes() if path.is_file() else str(path).encode())
        else:
            digest.update(content if isinstance(content, bytes) else repr(content).encode())
    return digest.hexdigest()
