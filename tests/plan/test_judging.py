"""The judge's calls and their price, by hand."""

import inspect

import pytest

from tests.plan.recipes import LLAVA, QWEN_3B, captions_folder, write
from trl_balcap.plan.run import make_plan


def test_judging_by_hand(tmp_path):
    """16 completions of 2 prompts a batch, 4 questions each and 2 references: 66 calls; 6 steps, of
    which the last 3 x 2 batches see the same 12 references again."""
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(captions_folder(tmp_path))]
    flags += ["--judge_model", "scenes/oracle"]
    flags += ["--per_device_train_batch_size", "16", "--num_train_epochs", "2"]

    judging = make_plan(None, flags, judge_price=(1.0, 10.0)).judging

    assert judging.batch.calls == 4 * 16 + 2
    assert judging.run is not None
    assert judging.run.calls == 12 * 4 * 16 + 12
    paid = judging.run.prompt_tokens * 1.0 + judging.run.completion_tokens * 10.0
    assert judging.run.usd == pytest.approx(paid / 1e6)
    fused = make_plan(None, [*flags, "--judge_profile", "fused"]).judging
    assert fused.batch.calls == 2 * 16 + 2


def test_prices_come_from_the_table_on_disk():
    flags = ["--model_name_or_path", LLAVA, "--judge_model", "openai/gpt-4o-mini"]
    judging = make_plan(None, flags).judging
    assert judging.price == (0.15, 0.6, 0.075)
    assert judging.batch.usd is not None
    assert make_plan(None, [*flags, "--judge_api_base", "http://judge/v1"]).judging.price is None


def test_a_recipe_gives_the_judge_its_price_and_several_deployments(tmp_path):
    text = """
    model_name_or_path: %s
    judge_model:
      - {model: openai/m, api_base: "http://east/v1"}
      - {model: openai/m, api_base: "http://west/v1"}
    judge_price: [2.0, 8.0]
    """
    recipe = write(tmp_path / "recipe.yaml", inspect.cleandoc(text % LLAVA))

    judging = make_plan(recipe).judging
    assert judging.price == (2.0, 8.0)
    assert judging.batch.usd == pytest.approx(
        (2 * judging.batch.prompt_tokens + 8 * judging.batch.completion_tokens) / 1e6
    )
    assert make_plan(recipe, judge_price=(1.0, 4.0)).judging.price == (1.0, 4.0)
