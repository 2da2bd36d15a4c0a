"""Where BalCapTrainer holds on to TRL. When a TRL release moves one of these, this fails first."""

import inspect

import pytest
import trl
from trl import GRPOTrainer

from trl_balcap import BalCapTrainer
from trl_balcap.ahead import AheadTrainer
from trl_balcap.checkpoints import CaptionerTrainer
from trl_balcap.rewards import LinguisticReward, PrecisionReward, RecallReward

SEAMS = {
    "__init__": ["self", "model", "reward_funcs", "args", "train_dataset", "eval_dataset"],
    "train": ["self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "_generate": ["self", "prompts"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_get_per_token_logps_and_entropies": ["self", "model"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_best_model": ["self"],
    "_determine_best_metric": ["self", "metrics", "trial"],
    "_evaluate": ["self", "trial", "ignore_keys_for_eval", "skip_scheduler"],
    "_save": ["self", "output_dir", "state_dict"],
    "push_to_hub": ["self"],
    "_push_from_checkpoint": ["self", "checkpoint_folder"],
    "create_model_card": ["self", "model_name", "dataset_name", "tags"],
    "log": ["self", "logs", "start_time"],
}


def moved(what: str) -> str:
    return (
        f"TRL {trl.__version__} changed {what}, on which BalCapTrainer stands. Read the new "
        "method, mend trl_balcap/trainer.py or ahead.py, and only then this test."
    )


@pytest.mark.parametrize("method", SEAMS)
def test_signatures(method):
    found = list(inspect.signature(getattr(GRPOTrainer, method)).parameters)
    assert found[: len(SEAMS[method])] == SEAMS[method], moved(f"the signature of {method}")
    grow = ("__init__", "_get_per_token_logps_and_entropies", "push_to_hub")  # by keywords
    if method not in grow:
        assert len(found) == len(SEAMS[method]), moved(f"the signature of {method}")


def test_every_override_calls_super():
    here = {"__init__", "_calculate_rewards", "_generate_and_score_completions", "log"}
    here |= {"train", "training_step", "_determine_best_metric"}
    ahead = {"train", "get_batch_samples", "_generate", "_get_per_token_logps_and_entropies"}
    ahead |= {"_generate_and_score_completions", "_calculate_rewards"}
    saving = {"_save", "create_model_card", "_load_from_checkpoint", "_load_best_model"}
    saving |= {"_determine_best_metric", "_evaluate", "push_to_hub", "_push_from_checkpoint"}
    trainers = ((BalCapTrainer, here), (AheadTrainer, ahead), (CaptionerTrainer, saving))
    for trainer, expected in trainers:
        assert {name for name in SEAMS if name in vars(trainer)} == expected
        for name in expected:
            assert f"super().{name}(" in inspect.getsource(getattr(trainer, name))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        # the batches of an update, kept for looking ahead; generated at these steps, from these
        # objects
        ("get_batch_samples", ["return batch_samples, num_items_in_batch"]),
        (
            "_prepare_inputs",
            [
                "self._step % generate_every == 0 or self._buffered_inputs is None",
                "self._generate_and_score_completions(generation_batch)",
            ],
        ),
        # order in the tuple: completion_ids second, completions fourth
        ("_generate", ["return prompt_ids, completion_ids, tool_mask, completions,"]),
        # the metric of the best checkpoint steps a schedule that waits for a plateau
        ("_evaluate", ["and not skip_scheduler", "self.lr_scheduler.step(metrics["]),
        # gathered over ranks when it returns
        ("_calculate_rewards", ["rewards_per_func = gather(rewards_per_func)"]),
        (
            "_generate_and_score_completions",
            [
                "self._calculate_rewards(",
                'self._logs["advantages"].extend(',
                'self._metrics[mode]["frac_reward_zero_std"].append(',
                '"advantages": advantages,',
                "self.accelerator.process_index * len(prompts)",
                # with judge_lag=1: old log-probabilities are the first that are asked for, where
                # generation and updates are out of step
                "generate_every = self.args.steps_per_generation * self.num_iterations",
                "if self.args.gradient_accumulation_steps % generate_every != 0 or (",
                "old_per_token_logps, _, _ = self._get_per_token_logps_and_entropies(",
                'output["old_per_token_logps"] = old_per_token_logps',
            ],
        ),
        # the policy that wrote a batch is the ratio's denominator, and its upper bound is delta
        (
            "_compute_loss",
            [
                'old_per_token_logps = inputs.get("old_per_token_logps")',
                "log_ratio = per_token_logps - old_per_token_logps",
                "coef_1 = torch.clamp(coef_1, max=self.args.delta)",
            ],
        ),
    ],
)
def test_what_the_overrides_rely_on(method, words):
    source = inspect.getsource(getattr(GRPOTrainer, method))
    for word in words:
        assert word in source, moved(f"{method}: {word!r} is gone from it")


def test_trl_awaits_our_rewards():
    from trl.trainer.utils import is_async_callable

    for reward_class in (PrecisionReward, RecallReward, LinguisticReward):
        assert is_async_callable(reward_class.__new__(reward_class)), moved("is_async_callable")
