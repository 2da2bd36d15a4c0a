"""The one image rule: every mode, every way an image can be wrong, the same for all who look."""

import base64
import io
import os

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs

from tests.data.photos import ASTRONAUT, ROCKET, cut
from trl_balcap.data.images import ImageError, bounded_size, image_problem, open_image
from trl_balcap.judge.images import encode_image


@pytest.mark.parametrize(
    ("size", "max_pixels", "expected"),
    [
        ((640, 480), 401_408, (640, 480)),
        ((4032, 3024), 401_408, (728, 532)),
        ((84, 84), 3136, (56, 56)),
        ((3000, 16), 3136, (756, 28)),  # smart_resize alone would give a height of 0
    ],
)
def test_bounded_size(size, max_pixels, expected):
    width, height = size
    assert bounded_size(width, height, max_pixels) == expected


def test_a_palette_image_with_transparency_turns_white_too():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.info["transparency"] = 0
    assert open_image(image).getpixel((0, 0)) == (255, 255, 255)


# --- images that cannot be used ---


def test_what_is_wrong_with_an_image_file(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    Image.new("L", (1, 300)).save(tmp_path / "line.png")
    cut(ASTRONAUT, 0.5, tmp_path / "cut.png")
    cut(ROCKET, 0.9, tmp_path / "cut.jpg")
    (tmp_path / "longer.jpg").write_bytes(ROCKET.read_bytes() + b"trailing words of a phone")

    assert image_problem(ASTRONAUT) is None
    assert image_problem(ROCKET) is None
    assert image_problem(tmp_path / "longer.jpg") is None
    assert image_problem(tmp_path / "none.png") == "there is no such file"
    assert image_problem(tmp_path) == "it is a folder"
    assert image_problem(tmp_path / "empty.png") == "the file is empty"
    assert image_problem(tmp_path / "text.png") == "it is not an image that Pillow can read"
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert image_problem(tmp_path / "IMG_1.HEIC") == (
        "it is a HEIC photograph, which Pillow cannot read; convert it to JPEG"
    )
    assert image_problem(tmp_path / "line.png") == (
        "its aspect ratio is 300 to 1, but processors take at most 200 to 1"
    )
    assert "truncated" in str(image_problem(tmp_path / "cut.png"))
    assert "truncated" in str(image_problem(tmp_path / "cut.jpg"))


def test_the_greatest_ratio_is_that_of_the_processors():
    from qwen_vl_utils.vision_process import MAX_RATIO

    assert image_problem(saved(Image.new("L", (MAX_RATIO, 1)), "PNG")) is None
    assert image_problem(saved(Image.new("L", (MAX_RATIO + 1, 1)), "PNG")) is not None


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for a writer, for ever
    assert image_problem(tmp_path / "pipe.png") == "it is not a regular file"
    with pytest.raises(ImageError, match=r"pipe\.png: it is not a regular file"):
        open_image(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", "^it is not an image that Pillow can read"),
        (b"", "it is not an image that Pillow can read"),
        (42, "a path, bytes or a datasets dict, got int"),
        ({"bytes": None, "path": None}, "the image is missing"),
        (None, "the image is missing"),
        ([], "a path, bytes or a datasets dict, got list"),
        (Image.new("RGB", (0, 5)), "an image of 0 x 5 pixels is empty"),
        ("https://nowhere.invalid/a.png", "the image https.*: it is a URL, and URLs are not"),
        ("gone.png", r"the image gone\.png: there is no such file"),
        ({"bytes": ROCKET.read_bytes()[:5000], "path": "a.jpg"}, r"the image a\.jpg: .*truncated"),
    ],
)
def test_what_cannot_be_opened_is_one_kind_of_error(image, message):
    with pytest.raises(ImageError, match=message):
        open_image(image)
    with pytest.raises(ImageError, match=message):
        encode_image(image)


def test_an_image_that_breaks_when_it_is_read_is_the_same_error(tmp_path):
    lazy = Image.open(cut(ROCKET, 0.5, tmp_path / "cut.jpg"))
    with pytest.raises(ImageError, match="truncated"):
        open_image(lazy)


# --- every mode ---


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(mode: str, dtype: str, top: float) -> Image.Image:
    """Black to `top` from left to right, 256 columns."""
    row = (np.arange(256) * (top / 255)).astype(dtype)
    return Image.fromarray(np.broadcast_to(row, (8, 256)).copy()).convert(mode)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(ramp("I;16", "uint16", 65535), id="16_bits"),
        pytest.param(ramp("I;16", "uint16", 4095), id="12_bits_of_16"),
        pytest.param(saved(ramp("I;16", "uint16", 65535), "PNG"), id="16_bit_png"),
        pytest.param(ramp("I", "int32", 2**31 - 1), id="32_bits"),
        pytest.param(ramp("F", "float32", 1.0), id="floats"),
        pytest.param(ramp("L", "uint8", 255), id="8_bits"),
    ],
)
def test_a_ramp_stays_a_ramp_for_policy_and_judge(image):
    """0 to 255 in 256 columns: mean 127.5. Clipped at 8 bits, 16 are nearly white."""
    seen = np.asarray(open_image(image, 401_408))[..., 0]  # (H, W)
    assert seen[0].tolist() == pytest.approx(list(range(256)), abs=1)
    assert seen.mean() == pytest.approx(127.5, abs=0.6)
    assert np.array_equal(sent(image), np.asarray(open_image(image)))


def sent(image) -> np.ndarray:
    """The pixels of the PNG that a judge receives."""
    data = base64.b64decode(encode_image(image).url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


PALETTE = Image.new("P", (4, 4), 0)
PALETTE.putpalette([200, 0, 0, 9, 9, 9])


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
        (Image.new("LA", (4, 4), (0, 255)), (0, 0, 0)),
        (Image.new("PA", (4, 4), (0, 0)), (255, 255, 255)),
        (Image.new("La", (4, 4), (0, 0)), (255, 255, 255)),
        (saved(PALETTE, "PNG", transparency=0), (255, 255, 255)),
        (saved(PALETTE, "PNG"), (200, 0, 0)),
        (saved(Image.new("L", (4, 4), 7), "PNG", transparency=7), (255, 255, 255)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("I;16", (4, 4), 65535), (255, 255, 255)),
        (Image.new("I", (4, 4), 100), (100, 100, 100)),
    ],
)
def test_transparency_is_white_and_every_mode_becomes_rgb_for_policy_and_judge(image, seen):
    shown = open_image(image, 401_408)
    assert (shown.mode, shown.getpixel((1, 1))) == ("RGB", seen)
    assert tuple(sent(image)[1, 1]) == seen


def test_an_image_on_its_side_is_upright_for_policy_and_judge():
    picture = Image.new("RGB", (20, 10), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right: the upper left corner is the upper right one
    stored = saved(picture, "PNG", exif=exif)
    assert open_image(stored).size == (10, 20)
    assert open_image(stored).getpixel((9, 0)) == (255, 0, 0)
    assert tuple(sent(stored)[0, 9]) == (255, 0, 0)


def test_the_object_that_was_given_stays_as_it_is():
    picture = Image.fromarray(photographs.astronaut())
    opened = open_image(picture)
    assert opened is not picture
    opened.paste((0, 0, 0), (0, 0, 9, 9))
    assert picture.getpixel((0, 0)) == (154, 147, 151)


# --- laws ---


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    tokens=st.integers(64, 2048),
)
def test_a_bound_holds_and_is_settled_after_one_step(width, height, tokens):
    """Within the bound wherever the sides are not so unequal that one of them is a single token."""
    assume(max(width, height) <= 16 * min(width, height))
    bound = tokens * 28 * 28
    size = bounded_size(width, height, bound)
    assert size[0] * size[1] <= bound
    assert bounded_size(*size, bound) == size
    assert size == (width, height) or all(side % 28 == 0 for side in size)


@given(content=st.binary(max_size=300), at=st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_broken_bytes_are_an_image_error_or_an_image(content, at):
    """A PNG with other bytes somewhere: it opens, or it is an [`ImageError`], and nothing else."""
    sound = saved(Image.effect_noise((24, 24), 60), "PNG")
    broken = sound[:at] + content + sound[at + len(content) :]
    try:
        opened = open_image(broken, 401_408)
    except ImageError:
        opened = None
    assert opened is None or opened.mode == "RGB"
    assert image_problem(broken) is None or isinstance(image_problem(broken), str)
