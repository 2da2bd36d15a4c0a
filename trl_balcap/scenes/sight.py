"""Reads a scene back from its pixels, so that the exact judge sees what any judge would see.

Every cell is compared with everything it could contain, 48 things (with or without a dot) or
nothing, and the nearest picture wins; on the rich board, so does the nearest background. This makes
reading exact on the output of `draw`, and robust to what happens to images on their way to a judge:
PNG, JPEG and resizing.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image

from trl_balcap.scenes.world import (
    CANVAS,
    CELL,
    COLOURS,
    RICHNESS,
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
            JPEG together with shrinking hides white dots, so rich scenes survive only one of them.

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
    misfits = []
    for richness in RICHNESS:
        side = RICHNESS[richness].canvas
        sized = image
        if image.size != (side, side):
            sized = image.resize((side, side), Image.Resampling.BILINEAR)
        scene, error, misfit = _read(sized.tobytes(), richness)
        if error <= 1:
            return scene
        misfits.append((error, misfit))
    raise ValueError(min(misfits)[1])


@functools.lru_cache(maxsize=_KEPT)
def _read(pixels: bytes, richness: str) -> tuple[Scene, float, str]:
    """The nearest scene, the error of its worst cell as a share of what is allowed, and a line on
    that cell."""
    board = RICHNESS[richness]
    canvas = Image.frombytes("RGB", (board.canvas, board.canvas), pixels)
    cells = _cells(canvas)  # (N, D)
    things = _things(richness)
    found = []
    for background in board.backgrounds or (None,):
        candidates, squares = _candidates(richness, background)  # (N, C, D), (N, C)
        products = np.matmul(candidates, cells[:, :, None])[:, :, 0]  # (N, C)
        distances = squares - 2 * products + (cells * cells).sum(axis=1)[:, None]  # (N, C)
        found.append((distances.min(axis=1), distances.argmin(axis=1), background))
    distance, nearest, background = min(found, key=lambda each: each[0].sum())  # (N,), (N,)
    errors = np.sqrt(np.maximum(distance, 0) / cells.shape[1])  # (N,)
    limits = np.where(nearest == 0, _LARGEST_ERROR_EMPTY, _LARGEST_ERROR)  # (N,)
    worst = int((errors / limits).argmax())
    scene = Scene(
        tuple(
            things[candidate - 1](*board.place(cell))
            for cell, candidate in enumerate(nearest.tolist())
            if candidate
        ),
        richness,
        background,
    )
    misfit = (
        f"the image is not a scene: its {' '.join(board.place(worst))} differs by "
        f"{errors[worst]:.0f} grey levels from everything that could be there, but at most "
        f"{limits[worst]:.0f} are allowed. The judge of scenes can only judge scenes."
    )
    return scene, float(errors[worst] / limits[worst]), misfit


@functools.cache
def _things(richness: str) -> list[Callable[[str, str], Thing]]:
    """Everything that can stand in a cell of a board."""
    dots = (False, True) if RICHNESS[richness].dotted else (False,)
    return [
        functools.partial(_thing, colour, shape, size, dotted)
        for dotted in dots
        for colour, shape, size in itertools.product(COLOURS, SHAPES, SIZES)
    ]


def _thing(colour: str, shape: str, size: str, dotted: bool, row: str, column: str) -> Thing:
    return Thing(colour, shape, size, row, column, dotted)


@functools.cache
def _candidates(richness: str, background: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of each cell, empty and with each of `_things`, and their squared norms."""
    board = RICHNESS[richness]
    boards = [draw(Scene((), richness, background))]
    for thing in _things(richness):
        cells = tuple(thing(*board.place(cell)) for cell in range(board.cells))
        boards.append(draw(Scene(cells, richness, background)))
    pictures = np.stack([_cells(picture) for picture in boards], axis=1)  # (N, C, D)
    return pictures, (pictures * pictures).sum(axis=2)


def _cells(canvas: Image.Image) -> np.ndarray:
    """Pixels of the N cells, (N, D), centred around 0 so that float32 is exact enough."""
    small = np.asarray(canvas.reduce(_SHRINK), dtype=np.float32) - 128.0
    n = canvas.width // CELL
    grid = small.reshape(n, _SIDE, n, _SIDE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid).reshape(n * n, -1)
