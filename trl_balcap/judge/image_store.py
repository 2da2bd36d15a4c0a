"""Images of a batch, encoded once however many rollouts show them."""

import asyncio
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trl_balcap.judge.images import EncodedImage, encode_image, open_image, pixel_digest

_IMAGES_KEPT = 256


class ImageStore:
    """Encoded images by identity and by pixels. Encoding runs in threads of its own."""

    def __init__(self, max_pixels: int):
        self._max_pixels = max_pixels
        self._by_digest: OrderedDict[str, asyncio.Future[EncodedImage]] = OrderedDict()
        self._by_id: dict[int, tuple[weakref.ref, asyncio.Future[EncodedImage]]] = {}
        self._encoders = ThreadPoolExecutor(2, "trl-balcap-images")

    async def encode(self, image: Any) -> tuple[EncodedImage, ...]:
        """The image (or list of images) as sent."""
        images = image if isinstance(image, list | tuple) else [image]
        return tuple(await asyncio.gather(*(self._encoded(one) for one in images)))

    async def _encoded(self, image: Any) -> EncodedImage:
        known = self._by_id.get(id(image))
        if known is not None and known[0]() is image:
            return await asyncio.shield(known[1])
        future = asyncio.ensure_future(self._encode(image))
        try:
            # Not by value: PIL images are unhashable. The callback keeps a reused id from lying.
            key = id(image)
            reference = weakref.ref(image, lambda _: self._by_id.pop(key, None))
        except TypeError:
            pass  # a path or bytes: no identity worth keeping, the digest below finds the copy
        else:
            self._by_id[id(image)] = (reference, future)
        return await asyncio.shield(future)

    async def _encode(self, image: Any) -> EncodedImage:
        loop = asyncio.get_running_loop()

        def load() -> tuple[Any, str]:
            picture = open_image(image)
            return picture, pixel_digest(picture)

        picture, digest = await loop.run_in_executor(self._encoders, load)
        future = self._by_digest.get(digest)
        if future is None:
            future = self._by_digest[digest] = asyncio.ensure_future(
                loop.run_in_executor(self._encoders, encode_image, picture, self._max_pixels)
            )
            if len(self._by_digest) > _IMAGES_KEPT:
                self._by_digest.popitem(last=False)
        return await asyncio.shield(future)
