"""Encodes the images of a batch once, however many rollouts share them."""

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

_IMAGES_KEPT = 256  # least recently used go first


class ImageStore:
    """
    Encoded images by content. Encoding runs in its own threads.

    Images are identified by their content, not by object: a modified image is a new one, and the
    G equal copies of a prompt's image are the same one.
    """

    def __init__(self, max_pixels: int):
        self._max_pixels = max_pixels
        self._by_content: OrderedDict[str, asyncio.Future[EncodedImage]] = OrderedDict()
        self._under_way: dict[int, asyncio.Future[EncodedImage]] = {}  # by id, while somebody waits
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
            # The task keeps the image alive, so no other object can get its id meanwhile.
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
    """A hash of everything that determines an image's look; for a file, of its undecoded bytes."""
    digest = hashlib.sha256()  # hardware-accelerated nearly everywhere, unlike BLAKE2
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
            # open_image reports anything that is not a regular file, and never blocks on a pipe.
            digest.update(path.read_bytes() if path.is_file() else str(path).encode())
        else:
            digest.update(content if isinstance(content, bytes) else repr(content).encode())
    return digest.hexdigest()
