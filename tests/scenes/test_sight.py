"""Pixels read back: a scene from its image."""

import io
import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.scenes.questions import scenes
from tests.scenes.things import TWO
from trl_balcap.scenes.sight import read_scene
from trl_balcap.scenes.world import (
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    draw,
    random_scene,
)


def encoded(image: Image.Image, form: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("form", [("PNG", {}), ("JPEG", {"quality": 80})], ids=["png", "jpeg80"])
@pytest.mark.parametrize("factor", [0.7, 1, 1.37, 2, 4])
def test_every_thing_in_every_place_is_read(factor, form):
    things = list(itertools.product(COLOURS, SHAPES, SIZES))
    random.Random(0).shuffle(things)
    places = list(itertools.product(ROWS, COLUMNS))
    # 48 boards of nine cells; over the boards each of the 48 things stands in each of the 9 cells.
    for shift in range(len(things)):
        scene = Scene(
            tuple(
                Thing(*things[(shift + 5 * cell) % len(things)], *place)
                for cell, place in enumerate(places)
                if (shift + cell) % 4 or factor == 1  # with gaps, other than at factor 1
            )
        )
        image = draw(scene)
        if factor != 1:
            image = image.resize((round(84 * factor),) * 2, Image.Resampling.BICUBIC)
        assert read_scene(encoded(image, form[0], **form[1])) == scene


@given(scene=scenes, factor=st.floats(0.7, 4), method=st.sampled_from(list(Image.Resampling)))
@settings(max_examples=60, deadline=None)
def test_reading_undoes_drawing_at_any_size(scene, factor, method):
    if method == Image.Resampling.NEAREST:
        factor = max(1, factor)  # it drops pixels in place of averaging
    side = round(84 * factor)
    shown = draw(scene).resize((side, side), method)
    assert read_scene(encoded(shown, "JPEG", quality=80)) == scene


def test_other_image_modes_are_read():
    assert read_scene(draw(TWO).convert("RGBA")) == TWO
    assert read_scene(draw(TWO).quantize(64)) == TWO


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.new("RGB", (84, 84), "white"), id="white"),
        pytest.param(Image.new("L", (300, 300), 128), id="grey"),
        pytest.param(Image.effect_noise((84, 84), 80).convert("RGB"), id="noise"),
        pytest.param(Image.radial_gradient("L").convert("RGB"), id="gradient"),
        pytest.param(draw(TWO).rotate(45), id="rotated"),
        pytest.param(draw(TWO).crop((14, 14, 84, 84)), id="cropped"),
        pytest.param(draw(TWO).resize((84, 168)), id="stretched"),
        pytest.param(draw(TWO).resize((20, 20)), id="tiny"),
    ],
)
def test_an_image_that_is_no_scene_is_an_error(image):
    with pytest.raises(ValueError, match="the image is not a scene"):
        read_scene(image)


def test_reading_is_fast():
    images = [draw(random_scene(random.Random(seed))) for seed in range(50)]
    read_scene(images[0])  # the candidates are drawn once
    start = time.process_time()
    for image in images:
        read_scene(image)
    assert (time.process_time() - start) / len(images) < 2e-3
