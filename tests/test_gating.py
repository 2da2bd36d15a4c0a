"""The gate by hand, the wrapper as TRL calls it."""

import asyncio
import functools
import inspect
import pickle
from typing import Any, cast

import pandas
import pytest
import torch
from transformers import AutoProcessor

from tests.conftest import scene_dataset
from tests.test_trainer import CPU
from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    LinguisticReward,
    PrecisionReward,
    gate_reward,
    length_gate,
    linear_length_penalty,
)
from trl_balcap.data.completions import completion_text
from trl_balcap.rewards import JudgingReport, RewardHooks
from trl_balcap.rewards.hooks import reward_name


def fluent(completions, log_extra=None, **kwargs):
    if log_extra is not None:
        log_extra("fluency", [text.upper() for text in completions])
    return [0.9 - 0.1 * i for i in range(len(completions))]


async def fluent_async(completions, **kwargs):
    return fluent(completions)


class Judged(RewardHooks):
    __name__ = "judged"
    needs = ("image",)
    max_unscored = 0.25

    def __init__(self):
        self.started = []
        self.did = []

    def preflight(self):
        self.did.append("preflight")

    def before_generation(self, **columns):
        self.did.append("before_generation")

    def forget(self):
        self.did.append("forget")

    def take_report(self):
        return JudgingReport("judged", asked=1, unscored={"timeout": 1})

    def observations(self):
        return [{"clarity": 7.0, "reward": 0.5}]

    def start(self, **columns):
        self.started.append(columns)

    async def __call__(self, completions, **kwargs):
        return [None] * len(completions)


@pytest.fixture(scope="module")
def processor(tiny_qwen):
    return AutoProcessor.from_pretrained(tiny_qwen)


def tokens(processor, text):
    return processor.tokenizer(text)["input_ids"]


def test_mask_is_closed_interval_and_zero_outside():
    ratio = torch.tensor([0.49, 0.5, 1.0, 2.0, 2.01])
    gated = length_gate(torch.full((5,), 0.9), ratio)
    torch.testing.assert_close(gated, torch.tensor([0.0, 0.9, 0.9, 0.9, 0.0]))


def test_missing_stays_missing_inside_and_is_zero_outside():
    nan = float("nan")
    for formula in (length_gate, linear_length_penalty):
        gated = formula(torch.tensor([nan, nan]), torch.tensor([1.0, 3.0]))
        assert gated[0].isnan()
        assert gated[1] == 0.0


def test_every_column_is_gated():
    gated = length_gate(torch.ones(2, 3), torch.tensor([1.0, 9.0]))
    assert gated.tolist() == [[1.0] * 3, [0.0] * 3]


def test_linear_by_hand():
    # lower 0.5, upper 2: halfway down at 0.75 and at 1.5, zero from the bounds on
    ratio = torch.tensor([0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 9.0])
    penalised = linear_length_penalty(torch.full((7,), 0.8), ratio)
    torch.testing.assert_close(penalised, torch.tensor([0.0, 0.0, 0.4, 0.8, 0.4, 0.0, 0.0]))


@pytest.mark.parametrize("formula", [length_gate, linear_length_penalty])
def test_bounds_in_the_wrong_order(formula):
    with pytest.raises(ValueError, match=r"lower=2.0 and upper=0.5. Swap them"):
        formula(torch.ones(1), torch.ones(1), lower=2.0, upper=0.5)


def test_linear_needs_a_band_around_one():
    with pytest.raises(ValueError, match=r"lower < 1 < upper, got 1.5 and 2.0"):
        linear_length_penalty(torch.ones(1), torch.ones(1), lower=1.5, upper=2.0)


def test_only_open_rows_reach_the_reward(processor):
    reference = "There is a large red circle."
    ids = tokens(processor, reference)
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    metrics, extra = {}, {}
    gated = gate_reward(fluent, processor)
    rewards = gated(
        prompts=["p"] * 4,
        completions=["equal", "short", "long", "padded"],
        completion_ids=[ids, ids[:2], ids * 3, [*ids, eos, pad, pad]],
        reference=[reference] * 4,
        log_metric=metrics.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert rewards == pytest.approx([0.9, 0.0, 0.0, 0.8])  # rows 0 and 3 were its first and second
    short = 2 / len(ids)
    assert extra["fluency"] == ["EQUAL", None, None, "PADDED"]
    assert extra["fluent/length_ratio"] == pytest.approx([1.0, short, 3.0, 1.0])
    assert metrics["length_gate/too_short"] == 0.25
    assert metrics["length_gate/too_long"] == 0.25
    # EOS and padding are no tokens of the caption
    assert metrics["length_gate/ratio"] == pytest.approx((1 + 2 / len(ids) + 3 + 1) / 4)


def test_a_closed_batch_asks_nothing(processor):
    def never(**kwargs):
        raise AssertionError("the reward was called")

    gated = gate_reward(never, processor)
    assert gated(completions=["", ""], completion_ids=[[], []], reference=["a", "b"]) == [0.0, 0.0]


def test_texts_are_counted_where_no_ids_are_passed(processor):
    gated = gate_reward(fluent, processor)
    message = [{"role": "assistant", "content": "There is a star."}]
    assert gated(completions=[message, ""], reference=["There is a star."] * 2) == [0.9, 0.0]


@pytest.mark.parametrize("reward", [fluent_async, Judged()])
def test_stays_async_and_keeps_its_name(processor, reward):
    gated = gate_reward(reward, processor)
    assert inspect.iscoroutinefunction(type(gated).__call__)
    assert gated.__name__ == reward.__name__
    rewards = asyncio.run(
        gated(completions=["a", "b"], completion_ids=[[300], []], reference=["a", "b"])
    )
    assert rewards[1] == 0.0
    assert rewards[0] in (0.9, None)


def test_what_a_reward_with_hooks_offers_passes_through(processor):
    judged = Judged()
    gated: Any = gate_reward(judged, processor)
    assert gated.needs == ("image", "reference")
    assert gated.max_unscored == 0.25
    gated.preflight()
    gated.before_generation(reference=["a"])
    gated.forget()
    assert judged.did == ["preflight", "before_generation", "forget"]
    gated.start(
        completions=["x", "y"], completion_ids=[[300], []], reference=["a", "b"], image=[1, 2]
    )
    assert judged.started == [
        {"completions": ["x"], "completion_ids": [[300]], "reference": ["a"], "image": [1]}
    ]


def test_what_was_seen_of_each_row_stands_in_its_place(processor):
    gated: Any = gate_reward(Judged(), processor)
    columns = {"completion_ids": [[], [300], [300]], "reference": ["a", "b", " "]}
    assert asyncio.run(gated(completions=["x", "y", "z"], **columns)) == [0.0, None, None]
    assert gated.observations() == [
        {"reason": "length_gate", "length_ratio": 0.0, "gated": True},
        {"clarity": 7.0, "reward": 0.5, "length_ratio": 1.0, "gated": False},
        {"reason": "no_reference"},
    ]
    report = gated.take_report()
    assert report.unscored == {"timeout": 1, "no_reference": 1}
    assert gated.take_report().unscored == {"timeout": 1}  # the gate's own is counted once


def test_a_start_of_its_own_is_not_called(processor):
    class Race:
        __name__ = "race"

        def start(self, *lanes):
            raise AssertionError("this start is none of the trainer's")

        def __call__(self, completions, **kwargs):
            return [1.0] * len(completions)

    gated: Any = gate_reward(Race(), processor)
    gated.start(completions=["x"], completion_ids=[[300]], reference=["a"])
    assert gated(completions=["x"], completion_ids=[[300]], reference=["a"]) == [1.0]


def test_partials_keep_their_name_and_stay_async(processor):
    gated = gate_reward(functools.partial(fluent_async, style="plain"), processor)
    assert gated.__name__ == "fluent_async"
    row = {"completions": ["a"], "completion_ids": [[300]], "reference": ["a"]}
    assert asyncio.run(gated(**row)) == [0.9]
    judged = Judged()
    gated = gate_reward(functools.partial(judged, image=[3]), processor)
    cast(RewardHooks, gated).start(**row)
    assert judged.started[0]["image"] == [3]


def test_no_old_value_stands_beside_a_new_completion(processor):
    gated, logged = gate_reward(fluent, processor), {}
    row = {"completions": ["a"], "reference": ["a"], "log_extra": logged.__setitem__}
    gated(completion_ids=[[300]], **row)
    assert logged["fluency"] == ["A"]
    gated(completion_ids=[[300] * 9], **row)  # closed
    assert logged == {"fluency": [None], "fluent/length_ratio": [9.0]}


def test_a_judges_columns_are_there_from_the_first_closed_batch(processor):
    gated: Any = gate_reward(PrecisionReward(Judge("scenes/oracle")), processor)
    logged = {}
    rows = {"completions": ["a", ""], "completion_ids": [[300] * 9, []], "reference": ["a", "b"]}
    asyncio.run(gated(prompts=["", ""], log_extra=logged.__setitem__, **rows))
    assert logged == {
        "precision_reward/assertions": [None, None],
        "precision_reward/pointable": [None, None],
        "precision_reward/length_ratio": [9.0, 0.0],
    }


def telling_reward(completions, log_extra, **kwargs):
    log_extra("told", [completion_text(one) for one in completions])
    return [1.0] * len(completions)


@pytest.mark.parametrize("judged", [True, False], ids=["a judge's", "a function's"])
def test_the_table_of_completions_may_begin_behind_a_closed_gate(tiny_qwen, tmp_path, judged):
    reward = LinguisticReward("scenes/oracle") if judged else telling_reward
    # 8 tokens, then too long: TRL shuffles them, and begins with the last two.
    references = ["A red star. " * 2] * 2 + ["A red star. " * 99] * 2
    held_out = scene_dataset(4).remove_columns("reference").add_column("reference", references)
    config = {
        **CPU, "log_completions": True, "length_gated_rewards": [reward_name(reward)],
        "per_device_eval_batch_size": 4, "num_generations": 2, "gradient_accumulation_steps": 2,
        "generation_kwargs": {"min_new_tokens": 8}, "steps_per_generation": 2,
    }  # fmt: skip
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [reward],
        BalCapConfig(str(tmp_path), **config),
        train_dataset=scene_dataset(8),
        eval_dataset=held_out,
    )
    trainer.evaluate()
    table: Any = pandas.read_parquet(tmp_path / "completions" / "completions_00000.parquet")
    ratios = table[f"{reward_name(reward)}/length_ratio"]
    assert [0.5 <= ratio <= 2.0 for ratio in ratios] == [False] * 4 + [True] * 4
    if judged:
        assert table["linguistic_reward/clarity"].isna()[:4].all()
    else:
        # Older releases of TRL write texts into the table, newer ones messages.
        told = (one if isinstance(one, str) else list(one) for one in table["completion"])
        said = [completion_text(one) for one in told]
        assert table["told"][:4].isna().all()
        assert table["told"].tolist()[4:] == said[4:]


def test_ends_that_the_tokenizer_does_not_call_special_are_no_length(processor):
    reference = "There is a star."
    ids = [*tokens(processor, reference), 301, 301]
    rows = {"completions": ["a"], "completion_ids": [ids], "reference": [reference]}
    ratios = [
        cast(Any, gate_reward(fluent, processor, end_token_ids=ends)).lengths(**rows).item()
        for ends in ([], [301])
    ]
    assert ratios == [len(ids) / (len(ids) - 2), 1.0]


def test_bounds_in_tokens_need_no_reference_and_log_no_ratio(processor):
    ids = tokens(processor, "There is a large red circle.")
    eos = processor.tokenizer.eos_token_id
    n, metrics, extra = len(ids), {}, {}
    gated: Any = gate_reward(Judged(), processor, tokens=(n, n + 1))
    assert gated.needs == ("image",)
    rewards = asyncio.run(
        gated(
            completions=["equal", "short", "long", "ended"],
            completion_ids=[ids, ids[:-1], ids * 2, [*ids, 300, eos]],
            log_metric=metrics.__setitem__,
            log_extra=extra.__setitem__,
        )
    )
    assert rewards == [None, 0.0, 0.0, None]  # this judge has no verdicts on what is open
    assert metrics == {"length_gate/too_short": 0.25, "length_gate/too_long": 0.25}
    assert extra == {}
    assert gated.observations()[1] == {"reason": "length_gate", "gated": True}


def test_bounds_in_tokens_are_a_band_of_the_mask(processor):
    with pytest.raises(ValueError, match=r"pair of whole numbers.*got \(200, 60\)"):
        gate_reward(fluent, processor, tokens=(200, 60))
    with pytest.raises(ValueError, match="tokens needs kind='mask', got 'linear'"):
        gate_reward(fluent, processor, tokens=(60, 200), kind="linear")


def test_survives_pickling(processor):
    gated = pickle.loads(pickle.dumps(gate_reward(fluent, processor, upper=1.5)))
    assert gated.upper == 1.5
    assert gated(completions=["a"], completion_ids=[[300]], reference=["a"]) == [0.9]


def test_bad_input(processor):
    gated = gate_reward(fluent, processor)
    with pytest.raises(ValueError, match="no column 'reference'"):
        gated(completions=["a"], completion_ids=[[300]])
    with pytest.raises(ValueError, match="got 1 completions but 2 references"):
        gated(completions=["a"], completion_ids=[[300]], reference=["a", "b"])
    with pytest.raises(ValueError, match=r"length_ratio must be a torch.Tensor, got float"):
        length_gate(torch.ones(1), 1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        length_gate(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="Only reward functions can be length-gated, got Linear"):
        gate_reward(torch.nn.Linear(1, 1), processor)
    with pytest.raises(ValueError, match="kind must be 'mask' or 'linear', got 'slope'"):
        gate_reward(fluent, processor, kind=cast(Any, "slope"))
