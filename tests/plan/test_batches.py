"""The plan's batch arithmetic, by hand and against TRL."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.plan import GenerationBatch


def test_a_generation_batch_by_hand():
    """4 completions x 8 GPUs x 4 micro-batches = 128 = 16 prompts x 8."""
    batch = GenerationBatch(4, processes=8, gradient_accumulation_steps=4, num_generations=8)
    assert (batch.completions, batch.prompts, batch.completions_per_process) == (128, 16, 16)
    assert batch.optimizer_completions == 128
    # Half as many micro-batches generated at once: two generations an optimizer step.
    halved = dataclasses.replace(batch, steps_per_generation=2)
    assert (halved.completions, halved.generations(steps=10)) == (64, 20)


def test_a_batch_that_splits_a_group_says_what_would_not():
    """2 x 3 = 6 completions a micro-batch, groups of 8: lcm(6, 8) = 24, so 4 micro-batches."""
    with pytest.raises(
        ValueError, match=r"= 6 completions.*not a multiple of num_generations.*a multiple of 4\."
    ):
        GenerationBatch(2, processes=3, gradient_accumulation_steps=1, num_generations=8)
    with pytest.raises(ValueError, match=r"num_generations must be at least 2"):
        GenerationBatch(2, processes=3, gradient_accumulation_steps=1, num_generations=1)
    with pytest.raises(ValueError, match=r"processes must be at least 1, got 0"):
        GenerationBatch(2, processes=0, gradient_accumulation_steps=1, num_generations=8)


@given(
    st.integers(1, 8), st.integers(1, 16), st.integers(1, 8), st.integers(2, 16), st.integers(1, 3)
)
def test_the_way_out_of_a_split_group_works(width, processes, steps, group, iterations):
    try:
        batch = GenerationBatch(width, processes, steps, group, num_iterations=iterations)
    except ValueError as error:
        least = int(str(error).rsplit(" ", 1)[1].rstrip("."))
        batch = GenerationBatch(width, processes, least, group, num_iterations=iterations)
    assert batch.prompts * group == batch.completions


def test_steps_of_a_run_are_trls(tiny_text, tmp_path):
    """24 prompts, batches of 2 prompts, each used twice: 12 x 2 = 24 micro-batches of one step."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    batch = GenerationBatch(8, 1, 1, num_generations=4, num_iterations=2)
    args = GRPOConfig(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=8,
        num_generations=4,
        num_iterations=2,
        num_train_epochs=1,
    )
    trainer = GRPOTrainer(
        str(tiny_text),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["Describe."] * 25}),
    )
    assert args.generation_batch_size == batch.completions
    assert trainer.num_generations == batch.num_generations
    assert batch.num_generations * batch.prompts == args.generation_batch_size
    # TRL's own sampler, counted in the micro-batches that the loop will take.
    micro = len(list(trainer._get_train_sampler())) // args.per_device_train_batch_size
    assert batch.steps(rows=25, epochs=1) == micro
