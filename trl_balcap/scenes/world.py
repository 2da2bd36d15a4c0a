"""The drawn world: a board with coloured shapes on it, in two settings of its richness.

A scene has at most one thing per cell. The small board has 3x3 cells on 84x84 pixels; the rich one
has 4x4 on 112x112, with two to four times as many things, white dots on some of them, and a
background. A cell of 28 pixels is exactly one visual token of a Qwen2.5-VL model with 14-pixel
patches merged 2x2. Every cell has its own tint, which shows a tiny model where it is looking.
"""

import itertools
import random
from dataclasses import dataclass, fields

from PIL import Image, ImageDraw

__all__ = [
    "BACKGROUNDS",
    "CANVAS",
    "CELL",
    "COLOURS",
    "COLUMNS",
    "RADII",
    "RICHNESS",
    "ROWS",
    "SHAPES",
    "SIZES",
    "Richness",
    "Scene",
    "Thing",
    "board_of",
    "cell_tint",
    "draw",
    "random_scene",
]

CELL = 28
"""Side of one cell in pixels."""

CANVAS = 3 * CELL
"""Side of the small picture in pixels."""

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
_DOT = 3.5  # radius of a white dot, in pixels

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grey": (205, 205, 205),
    "pink": (250, 195, 205),
    "beige": (230, 212, 170),
    "aqua": (170, 220, 220),
}
"""The backgrounds of the rich board, and their RGB values in its first cell."""


@dataclass(frozen=True)
class Richness:
    """
    How much a picture can show: the board, and what there can be on it.

    Args:
        rows, columns (`tuple[str, ...]`): Names of the board's rows and columns.
        n_things (`tuple[int, int]`): Fewest and most things of a random scene.
        backgrounds (`tuple[str, ...]`): The backgrounds a scene can have; empty if it has none.
        dotted (`float`): Chance that a thing of a random scene carries a white dot.
        radii (`dict[str, int]`): Half the side of a thing's bounding box, in pixels, by size.

    Example:

    ```python
    >>> RICHNESS["rich"].canvas, RICHNESS["rich"].place(5)
    (112, ('upper', 'near left'))

    ```
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    n_things: tuple[int, int]
    backgrounds: tuple[str, ...]
    dotted: float
    radii: dict[str, int]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.rows) * len(self.columns)

    @property
    def canvas(self) -> int:
        """Side of the whole picture in pixels."""
        return len(self.rows) * CELL

    def cell(self, row: str, column: str) -> int:
        """Place in raster order, from 0 at the top left."""
        return len(self.columns) * self.rows.index(row) + self.columns.index(column)

    def place(self, cell: int) -> tuple[str, str]:
        """Row and column of a cell."""
        return self.rows[cell // len(self.columns)], self.columns[cell % len(self.columns)]


RICHNESS: dict[str, Richness] = {
    "small": Richness(ROWS, COLUMNS, (2, 4), (), 0.0, RADII),
    "rich": Richness(
        ("top", "upper", "lower", "bottom"),
        ("far left", "near left", "near right", "far right"),
        (8, 12),
        tuple(BACKGROUNDS),
        0.3,
        {"small": 7, "large": CELL // 2},  # large things in neighbouring cells touch
    ),
}
"""The settings of the world. No column's name occurs in two of them, so a place tells its board."""


def board_of(column: str) -> str:
    """The key of `RICHNESS` to which a column belongs.

    Raises:
        `ValueError`: if no board has such a column.
    """
    for name, richness in RICHNESS.items():
        if column in richness.columns:
            return name
    known = ", ".join(name for richness in RICHNESS.values() for name in richness.columns)
    raise ValueError(f"A thing has column={column!r}, but must have one of {known}.")


class _Brief:
    """Shows only what differs from the defaults, so that a small scene looks the same as ever."""

    def __repr__(self) -> str:
        values = [(each, getattr(self, each.name)) for each in fields(self)]  # type: ignore[arg-type]
        said = (f"{each.name}={value!r}" for each, value in values if value != each.default)
        return f"{type(self).__name__}({', '.join(said)})"


@dataclass(frozen=True, repr=False)
class Thing(_Brief):
    """One thing on the board.

    Args:
        colour (`str`): A key of `COLOURS`.
        shape (`str`): One of `SHAPES`.
        size (`str`): One of `SIZES`.
        row (`str`), column (`str`): A place on one of the boards in `RICHNESS`.
        dotted (`bool`, *optional*, defaults to `False`):
            Whether it carries a white dot; only on the rich board.

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
    dotted: bool = False

    def __post_init__(self) -> None:
        board = RICHNESS[self.richness]
        for name, allowed in (
            ("colour", tuple(COLOURS)),
            ("shape", SHAPES),
            ("size", SIZES),
            ("row", board.rows),
            ("dotted", (False, True) if board.dotted else (False,)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"A thing has {name}={value!r}, but must have one of "
                    f"{', '.join(map(str, allowed))}."
                )

    @property
    def richness(self) -> str:
        """The board it stands on, a key of `RICHNESS`."""
        return board_of(self.column)

    @property
    def cell(self) -> int:
        """Place in raster order: 0 is the top left, the last one the bottom right."""
        return RICHNESS[self.richness].cell(self.row, self.column)


@dataclass(frozen=True, repr=False)
class Scene(_Brief):
    """The things on the board, at most one per cell, in raster order.

    Args:
        things (`tuple[Thing, ...]`): The things, in any order; they are stored in raster order.
        richness (`str`, *optional*, defaults to `"small"`): The board, a key of `RICHNESS`.
        background (`str` or `None`, *optional*): One of the board's backgrounds, if it has any.

    Raises:
        `ValueError`: if two things share a cell, or something does not belong on the board.

    Example:

    ```python
    >>> star = Thing("blue", "star", "small", "top", "right")
    >>> disc = Thing("red", "circle", "large", "top", "left")
    >>> [thing.shape for thing in Scene((star, disc)).things]
    ['circle', 'star']

    ```
    """

    things: tuple[Thing, ...]
    richness: str = "small"
    background: str | None = None

    def __post_init__(self) -> None:
        backgrounds = RICHNESS[self.richness].backgrounds
        if self.background not in (backgrounds or (None,)):
            raise ValueError(
                f"A {self.richness} scene has background={self.background!r}, but must have "
                f"{'one of ' + ', '.join(backgrounds) if backgrounds else 'none'}."
            )
        for thing in self.things:
            if thing.richness != self.richness:
                raise ValueError(
                    f"A thing at the {thing.row} {thing.column} is not on the {self.richness} "
                    f"board. Use richness={thing.richness!r} for the whole scene."
                )
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


def random_scene(
    rng: random.Random, n_things: tuple[int, int] | None = None, richness: str = "small"
) -> Scene:
    """Sample a random scene: every number of things, cell and attribute is equally likely.

    Args:
        rng (`random.Random`): Source of randomness; the same state gives the same scene.
        n_things (`tuple[int, int]`, *optional*):
            Minimum and maximum number of things, both inclusive; between 0 and the number of cells.
            Defaults to that of the board: `(2, 4)`, or `(8, 12)` if rich.
        richness (`str`, *optional*, defaults to `"small"`): The board, a key of `RICHNESS`.

    Returns:
        `Scene`: The scene.

    Raises:
        `ValueError`: if `n_things` is not an increasing pair that the board can hold.

    Example:

    ```python
    >>> scene = random_scene(random.Random(0))
    >>> 2 <= len(scene.things) <= 4
    True

    ```
    """
    board = RICHNESS[richness]
    fewest, most = board.n_things if n_things is None else n_things
    if not 0 <= fewest <= most <= board.cells:
        raise ValueError(
            f"n_things is {n_things}, but must be (fewest, most) with 0 <= fewest <= most <= "
            f"{board.cells}: the board has {'nine' if board.cells == 9 else board.cells} cells."
        )
    cells = sorted(rng.sample(range(board.cells), rng.randint(fewest, most)))
    return Scene(
        tuple(
            Thing(
                rng.choice(tuple(COLOURS)),
                rng.choice(SHAPES),
                rng.choice(SIZES),
                *board.place(cell),
                dotted=board.dotted > 0 and rng.random() < board.dotted,
            )
            for cell in cells
        ),
        richness,
        rng.choice(board.backgrounds) if board.backgrounds else None,
    )


def cell_tint(row: str, column: str, background: str | None = None) -> tuple[int, int, int]:
    """RGB value of an empty cell; the rich board's depends on the background."""
    if background is None:
        return _TINTS[ROWS.index(row)][COLUMNS.index(column)]
    board = RICHNESS["rich"]
    red, green, blue = BACKGROUNDS[background]
    return red - 6 * board.rows.index(row), green, blue - 6 * board.columns.index(column)


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
        `PIL.Image.Image`: RGB image, 84x84 pixels for a small scene and 112x112 for a rich one,
        unless `large`. The same scene gives the same pixels.

    Example:

    ```python
    >>> picture = draw(Scene((Thing("red", "square", "large", "top", "left"),)))
    >>> picture.size, picture.getpixel((14, 14))
    ((84, 84), (220, 40, 40))

    ```
    """
    board = RICHNESS[scene.richness]
    image = Image.new("RGB", (board.canvas * _SCALE, board.canvas * _SCALE))
    pen = ImageDraw.Draw(image)
    side = CELL * _SCALE
    for i, row in enumerate(board.rows):
        for j, column in enumerate(board.columns):
            corner = (j * side, i * side, (j + 1) * side - 1, (i + 1) * side - 1)
            pen.rectangle(corner, fill=cell_tint(row, column, scene.background))
    for thing in scene.things:
        x = (board.columns.index(thing.column) + 0.5) * side
        y = (board.rows.index(thing.row) + 0.5) * side
        radius = board.radii[thing.size] * _SCALE
        colour = COLOURS[thing.colour]
        if thing.shape == "circle":
            pen.ellipse(_box(x, y, radius), fill=colour)
        elif thing.shape == "square":
            pen.rectangle(_box(x, y, radius), fill=colour)
        else:
            pen.polygon(_outline(thing.shape, (x, y), radius), fill=colour)
        if thing.dotted:
            pen.ellipse(_box(x, y, _DOT * _SCALE), fill=(255, 255, 255))
    return image if large else image.reduce(_SCALE)


def _box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius - 1, y + radius - 1
