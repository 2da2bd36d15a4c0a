"""The drawn world: rules of the board, and what a drawing shows."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.scenes.world import (
    CANVAS,
    CELL,
    COLOURS,
    COLUMNS,
    RADII,
    ROWS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    cell_tint,
    draw,
    random_scene,
)


def test_a_scene_keeps_its_things_in_raster_order():
    low = Thing("red", "circle", "large", "bottom", "left")
    high = Thing("blue", "star", "small", "top", "right")
    assert Scene((low, high)).things == (high, low)
    assert (high.cell, low.cell) == (2, 6)
    assert Scene((low, high)) == Scene((high, low))


def test_a_cell_holds_at_most_one_thing():
    one = Thing("red", "circle", "large", "top", "left")
    other = Thing("blue", "star", "small", "top", "left")
    with pytest.raises(ValueError, match="Two things stand at the top left"):
        Scene((one, other))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(("pink", "circle", "large", "top", "left"), id="colour"),
        pytest.param(("red", "cube", "large", "top", "left"), id="shape"),
        pytest.param(("red", "circle", "huge", "top", "left"), id="size"),
        pytest.param(("red", "circle", "large", "upper", "left"), id="row"),
        pytest.param(("red", "circle", "large", "top", "center"), id="column"),
    ],
)
def test_a_thing_has_only_the_worlds_attributes(values, request):
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"A thing has {name}="):
        Thing(*values)


@given(seed=st.integers(0, 10_000), fewest=st.integers(0, 9), more=st.integers(0, 9))
def test_random_scenes_keep_to_the_number_of_things(seed, fewest, more):
    most = min(9, fewest + more)
    scene = random_scene(random.Random(seed), (fewest, most))
    assert fewest <= len(scene.things) <= most
    assert scene == random_scene(random.Random(seed), (fewest, most))


@pytest.mark.parametrize("n_things", [(3, 2), (-1, 2), (4, 10)])
def test_random_scene_refuses_what_the_board_cannot_hold(n_things):
    with pytest.raises(ValueError, match="the board has nine cells"):
        random_scene(random.Random(0), n_things)


def test_random_scenes_use_every_attribute():
    rng = random.Random(0)
    things = [thing for _ in range(300) for thing in random_scene(rng).things]
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.size for thing in things} == set(SIZES)
    assert {thing.cell for thing in things} == set(range(9))


def test_an_empty_board_shows_nine_tints():
    image = draw(Scene(()))
    assert (image.mode, image.size) == ("RGB", (84, 84))
    tints = {image.getpixel((x, y)) for x in range(CANVAS) for y in range(CANVAS)}
    assert tints == {cell_tint(row, column) for row in ROWS for column in COLUMNS}
    assert len(tints) == 9


@given(
    colour=st.sampled_from(sorted(COLOURS)),
    shape=st.sampled_from(SHAPES),
    size=st.sampled_from(SIZES),
    row=st.sampled_from(ROWS),
    column=st.sampled_from(COLUMNS),
)
def test_a_thing_is_drawn_in_its_cell_in_its_colour_and_nowhere_else(
    colour, shape, size, row, column
):
    empty, image = draw(Scene(())), draw(Scene((Thing(colour, shape, size, row, column),)))
    left, top = COLUMNS.index(column) * CELL, ROWS.index(row) * CELL
    ys, xs = np.nonzero((np.asarray(image) != np.asarray(empty)).any(axis=2))
    assert image.getpixel((left + CELL // 2, top + CELL // 2)) == COLOURS[colour]
    assert left <= xs.min() <= xs.max() < left + CELL
    assert top <= ys.min() <= ys.max() < top + CELL
    box = (2 * RADII[size]) ** 2  # pixels
    share = {"circle": 0.785, "square": 1.0, "triangle": 0.5, "star": 0.31}[shape]
    assert share * box * 0.9 <= len(xs) <= share * box + 4 * 2 * RADII[size]  # smooth edges
