"""Images as a judge is sent them: upright, RGB, bounded, encoded once."""

import asyncio
import base64
import io

import numpy as np
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
    """As the policy's images: 1600 x 1200 under 120,000 is 400 x 300, down to multiples of 28."""
    _, sent = decoded(encode_image(photograph(1600, 1200), max_pixels=120_000))

    assert sent.size == (392, 280)


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


def test_an_image_that_was_painted_over_is_another_image():
    """The engine knows images by what they show, and not by the object that holds them."""
    engine = Judge("scenes/oracle").engine()
    picture = photograph(300, 300)
    before = asyncio.run(engine.encode(picture))
    assert asyncio.run(engine.encode(picture)) == before
    picture.paste((255 - np.asarray(picture)[0, 0, 0], 0, 0), (0, 0, 1, 1))
    assert asyncio.run(engine.encode(picture)) != before


def test_a_file_that_was_written_anew_is_another_image(tmp_path):
    engine = Judge("scenes/oracle").engine()
    for colour in ("red", "blue"):
        Image.new("RGB", (9, 9), colour).save(tmp_path / "a.png")
        [sent] = asyncio.run(engine.encode(tmp_path / "a.png"))
        assert decoded(sent)[1].getpixel((0, 0)) == Image.new("RGB", (1, 1), colour).getpixel(
            (0, 0)
        )


def test_an_encoded_image_shows_its_hash_only():
    encoded = encode_image(Image.new("RGB", (5, 5)))

    assert repr(encoded) == f"EncodedImage(digest='{encoded.digest}')"
    assert images.MAX_PIXELS == 1280 * 28 * 28
