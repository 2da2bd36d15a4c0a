"""Images as a judge is sent them: upright, RGB, bounded, encoded once."""

import asyncio
import base64
import io

import pytest
from PIL import Image, ImageDraw

from trl_balcap import Judge
from trl_balcap.judge import images
from trl_balcap.judge.images import encode_image


def decoded(encoded):
    header, data = encoded.url.split(",", 1)
    return header, Image.open(io.BytesIO(base64.b64decode(data)))


def photograph(width=1600, height=1200):
    return Image.merge("RGB", [Image.effect_noise((width, height), 80) for _ in range(3)])


def test_a_small_picture_is_sent_as_it_is():
    picture = Image.new("RGB", (84, 84), "white")
    ImageDraw.Draw(picture).ellipse((10, 10, 30, 30), fill="red")

    header, sent = decoded(encode_image(picture))

    assert header == "data:image/png;base64"
    assert sent.tobytes() == picture.tobytes()


def test_a_large_drawing_stays_lossless_and_a_photograph_becomes_a_jpeg():
    assert (
        decoded(encode_image(Image.new("RGB", (900, 900), "green")))[0] == "data:image/png;base64"
    )
    assert decoded(encode_image(photograph(900, 900)))[0] == "data:image/jpeg;base64"


def test_pixels_are_bounded_and_the_aspect_ratio_stays():
    _, sent = decoded(encode_image(photograph(1600, 1200), max_pixels=120_000))

    assert sent.size == (400, 300)


def test_a_sliver_keeps_at_least_a_pixel():
    assert decoded(encode_image(Image.new("RGB", (10_000, 1)), max_pixels=100))[1].height == 1


def test_the_exif_orientation_is_applied():
    picture = Image.new("RGB", (20, 10), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)

    _, sent = decoded(encode_image(buffer.getvalue()))

    assert sent.size == (10, 20)
    assert sent.getpixel((9, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("mode", "fill", "seen"),
    [
        ("L", 128, (128, 128, 128)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),  # what is transparent shows white
        ("LA", (0, 255), (0, 0, 0)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(mode, fill, seen):
    _, sent = decoded(encode_image(Image.new(mode, (8, 8), fill)))

    assert sent.mode == "RGB"
    assert sent.getpixel((4, 4)) == seen


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 30_000, 60_000)):
        deep.putpixel((x, 0), value)

    _, sent = decoded(encode_image(deep))

    assert [sent.getpixel((x, 0))[0] for x in range(3)] == pytest.approx([0, 127, 255], abs=1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", "cannot read the image"),
        (42, "a path, bytes or a datasets dict, got <class 'int'>"),
        ({"bytes": None, "path": None}, "got <class 'NoneType'>"),
        (Image.new("RGB", (0, 5)), "an image of 0x5 pixels shows nothing"),
    ],
)
def test_what_is_no_image_is_named(image, message):
    with pytest.raises(ValueError, match=message):
        encode_image(image)


def test_a_path_bytes_and_a_datasets_row_are_images(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (5, 5), "red").save(path)
    expected = encode_image(Image.new("RGB", (5, 5), "red"))

    for given in (path, str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": None}):
        assert encode_image(given) == expected


def test_equal_images_of_a_batch_are_encoded_once(monkeypatch):
    encoded = []

    def counting(image, max_pixels):
        encoded.append(image.size)
        return encode_image(image, max_pixels)

    monkeypatch.setattr("trl_balcap.judge.image_store.encode_image", counting)
    picture = photograph(300, 300)
    # As TRL gives them: the same object for some rows, equal copies for others.
    rows = [picture, picture, picture.copy(), photograph(300, 300)]
    engine = Judge("scenes/oracle").engine()

    async def batch():
        return await asyncio.gather(*(engine.encode(row) for row in rows))

    sent = asyncio.run(batch())
    assert len(encoded) == 2
    assert sent[0] == sent[1] == sent[2] != sent[3]


def test_an_encoded_image_shows_its_hash_only():
    encoded = encode_image(Image.new("RGB", (5, 5)))

    assert repr(encoded) == f"EncodedImage(digest='{encoded.digest}')"
    assert images.MAX_PIXELS == 1280 * 28 * 28
