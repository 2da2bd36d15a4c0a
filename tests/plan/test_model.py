"""Parameters counted by the plan are those of the models."""

import pytest
from peft import LoraConfig
from transformers import AutoModelForImageTextToText

from tests.plan.recipes import LLAVA, QWEN_3B, QWEN_7B
from trl_balcap.plan import model_shape
from trl_balcap.plan.model import load_config
from trl_balcap.plan.ways_out import LANGUAGE_LORA


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (QWEN_3B, 3_754_622_976),
        (QWEN_7B, 8_292_166_656),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        (LLAVA, 7_063_427_072),
    ],
)
def test_parameters_of_the_recipes_models_are_those_of_their_checkpoints(name, parameters):
    shape = model_shape(name, load_config(name))
    assert (shape.parameters, shape.trainable) == (parameters, parameters)


def test_adapters_are_counted_where_peft_puts_them():
    """Qwen2.5-VL-3B, r = 16, 36 layers. Each adapter has 16 x (inputs + outputs) weights:
    q and o 2048 + 2048, k and v 2048 + 256, gate, up and down 2048 + 11008."""
    shape = model_shape(
        QWEN_3B, load_config(QWEN_3B), LoraConfig(r=16, target_modules=LANGUAGE_LORA)
    )
    per_layer = 16 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008))
    assert shape.trainable == 36 * per_layer == 29_933_568
    assert not shape.vision_trains
    assert not shape.head_trains


def test_a_local_folder_is_read_and_an_unknown_name_is_not_fetched(tiny_qwen):
    real = AutoModelForImageTextToText.from_pretrained(tiny_qwen)
    shape = model_shape("tiny", load_config(str(tiny_qwen)))
    assert shape.parameters == sum(parameter.numel() for parameter in real.parameters())

    with pytest.raises(
        ValueError, match=r"'nobody/nothing': it is not a folder.*local folder.*--network"
    ):
        load_config("nobody/nothing")
