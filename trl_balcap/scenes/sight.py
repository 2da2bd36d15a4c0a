"""Reads a scene back from its pixels, so that the exact judge sees what any judge would see.

Every cell is compared with everything it could contain, 48 things or nothing, and the nearest
picture wins. This makes reading exact on the output of `draw`, and robust to what happens to images
on their way to a judge: PNG, JPEG and resizing.
"""

import functools
import itertools

import numpy as np
from PIL import Image

from trl_balcap.scenes.world import (
    CANVAS,
    CELL,
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    draw,
)

__all__ = ["read_scene"]

_SHRINK = 2  # half the pixels each way still separate all candidates, in a quarter of the time
_SIDE = CELL // _SHRINK
# Root mean squared difference in a cell, in grey levels out of 255. Measured after resizing by 0.7
# and JPEG at quality 80: at most 9 in empty cells and 21 in others. Blank white gives 15, and a
# scene shifted by one pixel gives 32.
_LARGEST_ERROR_EMPTY = 12.0
_LARGEST_ERROR = 29.0
_KEPT = 512


def read_scene(image: Image.Image) -> Scene:
    r"""
    The scene that an image shows.

    Args:
        image (`PIL.Image.Image`):
            The output of [`draw`], possibly encoded as PNG or JPEG (quality 80 or more) and resized
            by a factor between 0.7 and 4. Shrinking needs a filter that averages (all but NEAREST).

    Returns:
        [`Scene`]: The things seen, in raster order.

    Raises:
        `ValueError`: if the image shows no scene; names the size, or the worst cell and how far it
            is from everything it could contain.

    Example:

    ```python
    >>> from trl_balcap.scenes.sight import read_scene
    >>> from trl_balcap.scenes.world import Scene, Thing, draw

    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> read_scene(draw(scene).resize((200, 200))) == scene
    True

    ```
    """
    width, height = image.size
    if not 0.95 < width / height < 1.05 or min(width, height) < CANVAS // 2:
        raise ValueError(
            f"the image is not a scene: it has {width}x{height} pixels, but scenes are square with "
            f"at least {CANVAS // 2}. The judge of scenes can only judge scenes."
        )
    image = image.convert("RGB")
    if image.size != (CANVAS, CANVAS):
        image = image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)
    return _read(image.tobytes())


@functools.lru_cache(maxsize=_KEPT)
def _read(pixels: bytes) -> Scene:
    canvas = Image.frombytes("RGB", (CANVAS, CANVAS), pixels)
    cells = _cells(canvas)  # (9, D)
    candidates, squares = _candidates()  # (9, C, D), (9, C)
    products = np.matmul(candidates, cells[:, :, None])[:, :, 0]  # (9, C)
    distances = squares - 2 * products + (cells * cells).sum(axis=1)[:, None]  # (9, C)
    nearest = distances.argmin(axis=1)  # (9,)
    errors = np.sqrt(np.maximum(distances.min(axis=1), 0) / cells.shape[1])  # (9,)
    limits = np.where(nearest == 0, _LARGEST_ERROR_EMPTY, _LARGEST_ERROR)  # (9,)
    worst = int((errors / limits).argmax())
    if errors[worst] > limits[worst]:
        raise ValueError(
            f"the image is not a scene: its {ROWS[worst // 3]} {COLUMNS[worst % 3]} differs by "
            f"{errors[worst]:.0f} grey levels from everything that could be there, but at most "
            f"{limits[worst]:.0f} are allowed. The judge of scenes can only judge scenes."
        )
    return Scene(
        tuple(
            Thing(*_THINGS[candidate - 1], row=ROWS[cell // 3], column=COLUMNS[cell % 3])
            for cell, candidate in enumerate(nearest.tolist())
            if candidate
        )
    )


_THINGS = tuple(itertools.product(COLOURS, SHAPES, SIZES))


@functools.cache
def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """Pictures of each cell, empty and with each of `_THINGS`, and their squared norms."""
    boards = [draw(Scene(()))]
    for colour, shape, size in _THINGS:
        cells = itertools.product(ROWS, COLUMNS)
        boards.append(draw(Scene(tuple(Thing(colour, shape, size, *cell) for cell in cells))))
    pictures = np.stack([_cells(board) for board in boards], axis=1)  # (9, C, D)
    return pictures, (pictures * pictures).sum(axis=2)


def _cells(canvas: Image.Image) -> np.ndarray:
    """Pixels of the nine cells, (9, D), centred around 0 so that float32 is exact enough."""
    small = np.asarray(canvas.reduce(_SHRINK), dtype=np.float32) - 128.0
    grid = small.reshape(3, _SIDE, 3, _SIDE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid).reshape(9, -1)
