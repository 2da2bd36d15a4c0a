"""The tokens of an image, by hand and by the real processor."""

import pytest
from PIL import Image

from tests.plan.recipes import LLAVA, QWEN_3B, QWEN_7B
from trl_balcap.plan.images import image_tokens
from trl_balcap.plan.model import load_config
from trl_balcap.plan.run import make_plan


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        (QWEN_3B, (448, 448), 256),  # 16 x 16 tokens of 28 px
        (QWEN_7B, (640, 480), 23 * 17),  # 640 / 28 = 22.9, 480 / 28 = 17.1
        (LLAVA, (448, 448), 576),  # 24 x 24, whatever the image
        (LLAVA, (84, 84), 576),
    ],
)
def test_tokens_of_an_image(name, size, tokens):
    assert image_tokens(load_config(name), *size).tokens == tokens


def test_tokens_of_an_image_are_those_of_the_real_processor(tiny_qwen):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny_qwen)
    messages = [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (84, 84))}]}
    ]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt"
    )
    config = load_config(str(tiny_qwen))
    found = int((inputs["input_ids"] == config.image_token_id).sum())
    expected = image_tokens(config, 84, 84)
    assert found == expected.tokens == 9
    assert tuple(inputs["pixel_values"].shape) == (expected.patches, expected.patch_values)


def test_an_unknown_rule_for_images_can_be_given():
    config = load_config(LLAVA)
    config.model_type = "llava_next"
    with pytest.raises(ValueError, match=r"model type 'llava_next'. Pass it with --image-tokens"):
        image_tokens(config, 448, 448)
    plan = make_plan(None, ["--model_name_or_path", LLAVA], tokens_per_image=2880)
    assert plan.image.tokens == 2880
