"""The drawn world: a 3x3 board with a few coloured shapes on it.

A scene has at most one thing per cell. The canvas is 84x84 pixels, so a cell of 28 pixels is
exactly one visual token of a Qwen2.5-VL model with 14-pixel patches merged 2x2. Every cell has its
own pale tint, which shows a tiny model where it is looking.
"""

import itertools
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

__all__ = [
    "CANVAS",
    "CELL",
    "COLOURS",
    "COLUMNS",
    "RADII",
    "ROWS",
    "SHAPES",
    "SIZES",
    "Scene",
    "Thing",
    "cell_tint",
    "draw",
    "random_scene",
]

CELL = 28
"""Side of one cell in pixels."""

CANVAS = 3 * CELL
"""Side of the whole picture in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (30, 150, 60),
    "blue": (40, 80, 220),
    "yellow": (235, 190, 10),
    "purple": (150, 50, 180),
    "black": (25, 25, 25),
}
"""The colours a thing can have, and their RGB values."""

SHAPES = ("circle", "square", "triangle", "star")
SIZES = ("small", "large")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")

RADII = {"small": 7, "large": 13}
"""Half the side of a thing's bounding box, in pixels."""

_TINTS = (
    ((255, 238, 238), (255, 248, 232), (250, 255, 235)),
    ((236, 255, 238), (233, 255, 252), (235, 246, 255)),
    ((238, 238, 255), (248, 236, 255), (255, 236, 248)),
)
_SCALE = 4  # drawn four times as large, then averaged down for smooth edges


@dataclass(frozen=True)
class Thing:
    """One thing on the board.

    Args:
        colour (`str`): A key of `COLOURS`.
        shape (`str`): One of `SHAPES`.
        size (`str`): One of `SIZES`.
        row (`str`): One of `ROWS`.
        column (`str`): One of `COLUMNS`.

    Raises:
        `ValueError`: if a value is not allowed.

    Example:

    ```python
    >>> Thing("red", "circle", "large", "top", "centre").cell
    1

    ```
    """

    colour: str
    shape: str
    size: str
    row: str
    column: str

    def __post_init__(self) -> None:
        for name, allowed in (
            ("colour", tuple(COLOURS)),
            ("shape", SHAPES),
            ("size", SIZES),
            ("row", ROWS),
            ("column", COLUMNS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"A thing has {name}={value!r}, but must have one of {', '.join(allowed)}."
                )

    @property
    def cell(self) -> int:
        """Place in raster order: 0 is the top left, 8 the bottom right."""
        return 3 * ROWS.index(self.row) + COLUMNS.index(self.column)


@dataclass(frozen=True)
class Scene:
    """The things on the board, at most one per cell, in raster order.

    Args:
        things (`tuple[Thing, ...]`): The things, in any order; they are stored in raster order.

    Raises:
        `ValueError`: if two things share a cell.

    Example:

    ```python
    >>> star = Thing("blue", "star", "small", "top", "right")
    >>> disc = Thing("red", "circle", "large", "top", "left")
    >>> [thing.shape for thing in Scene((star, disc)).things]
    ['circle', 'star']

    ```
    """

    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        things = tuple(sorted(self.things, key=lambda thing: thing.cell))
        for one, other in itertools.pairwise(things):
            if one.cell == other.cell:
                raise ValueError(
                    f"Two things stand at the {one.row} {one.column}, but a cell holds at most "
                    "one. Move one of them to a free cell."
                )
        object.__setattr__(self, "things", things)

    def at(self, row: str, column: str) -> Thing | None:
        """The thing in a cell, or `None` if the cell is empty."""
        for thing in self.things:
            if (thing.row, thing.column) == (row, column):
                return thing
        return None


def random_scene(rng: random.Random, n_things: tuple[int, int] = (2, 4)) -> Scene:
    """Sample a random scene: every number of things, cell and attribute is equally likely.

    Args:
        rng (`random.Random`): Source of randomness; the same state gives the same scene.
        n_things (`tuple[int, int]`, *optional*, defaults to `(2, 4)`):
            Minimum and maximum number of things, both inclusive; between 0 and 9.

    Returns:
        `Scene`: The scene.

    Raises:
        `ValueError`: if `n_things` is not an increasing pair within 0 and 9.

    Example:

    ```python
    >>> scene = random_scene(random.Random(0))
    >>> 2 <= len(scene.things) <= 4
    True

    ```
    """
    fewest, most = n_things
    if not 0 <= fewest <= most <= 9:
        raise ValueError(
            f"n_things is {n_things}, but must be (fewest, most) with 0 <= fewest <= most <= 9: "
            "the board has nine cells."
        )
    cells = sorted(rng.sample(range(9), rng.randint(fewest, most)))
    return Scene(
        tuple(
            Thing(
                colour=rng.choice(tuple(COLOURS)),
                shape=rng.choice(SHAPES),
                size=rng.choice(SIZES),
                row=ROWS[cell // 3],
                column=COLUMNS[cell % 3],
            )
            for cell in cells
        )
    )


def cell_tint(row: str, column: str) -> tuple[int, int, int]:
    """RGB value of an empty cell."""
    return _TINTS[ROWS.index(row)][COLUMNS.index(column)]


def _outline(shape: str, centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Corners of a triangle or a five-pointed star that fills a box of side `2 * radius`."""
    # Unit outlines, y downwards. The star's inner corners are at 0.45 of the outer radius.
    triangle = [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    star = [
        (0.0, -1.0),
        (0.2645, -0.3641),
        (0.9511, -0.3090),
        (0.4280, 0.1391),
        (0.5878, 0.8090),
        (0.0, 0.4500),
        (-0.5878, 0.8090),
        (-0.4280, 0.1391),
        (-0.9511, -0.3090),
        (-0.2645, -0.3641),
    ]
    points = triangle if shape == "triangle" else star
    return [(centre[0] + radius * x, centre[1] + radius * y) for x, y in points]


def draw(scene: Scene, *, large: bool = False) -> Image.Image:
    """Draw a scene.

    Args:
        scene (`Scene`): What to draw.
        large (`bool`, *optional*, defaults to `False`):
            Whether to draw four times as wide and high, a size that large vision models see well.

    Returns:
        `PIL.Image.Image`: RGB image of `CANVAS` x `CANVAS` pixels, unless `large`. The same scene
        gives the same pixels.

    Example:

    ```python
    >>> picture = draw(Scene((Thing("red", "square", "large", "top", "left"),)))
    >>> picture.size, picture.getpixel((14, 14))
    ((84, 84), (220, 40, 40))

    ```
    """
    image = Image.new("RGB", (CANVAS * _SCALE, CANVAS * _SCALE))
    pen = ImageDraw.Draw(image)
    side = CELL * _SCALE
    for i, row in enumerate(ROWS):
        for j, column in enumerate(COLUMNS):
            corner = (j * side, i * side, (j + 1) * side - 1, (i + 1) * side - 1)
            pen.rectangle(corner, fill=cell_tint(row, column))
    for thing in scene.things:
        x = (COLUMNS.index(thing.column) + 0.5) * side
        y = (ROWS.index(thing.row) + 0.5) * side
        radius = RADII[thing.size] * _SCALE
        box = (x - radius, y - radius, x + radius - 1, y + radius - 1)
        colour = COLOURS[thing.colour]
        if thing.shape == "circle":
            pen.ellipse(box, fill=colour)
        elif thing.shape == "square":
            pen.rectangle(box, fill=colour)
        else:
            pen.polygon(_outline(thing.shape, (x, y), radius), fill=colour)
    return image if large else image.reduce(_SCALE)
