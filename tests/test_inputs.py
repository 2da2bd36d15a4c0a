"""What BalCapTrainer refuses before a model is loaded, and what it warns of."""

import json
import logging

import pytest
from datasets import Dataset, IterableDataset
from PIL import Image

from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    LinguisticReward,
    PrecisionReward,
    RecallReward,
)
from trl_balcap.inputs import check_rewards, loaded
from trl_balcap.rewards import JudgeReward

ROWS = {"prompt": ["Describe."] * 9, "reference": ["A dog."] * 9}


def config(**options):
    return BalCapConfig(
        "out", use_cpu=True, bf16=False, **{"per_device_train_batch_size": 8, **options}
    )


def build(dataset, reward_funcs, args=None, **kwargs):
    BalCapTrainer("no/such-model", reward_funcs, args or config(), dataset, **kwargs)


def brief_reward(completions, **kwargs):
    return [1.0 for _ in completions]


def test_a_dataset_smaller_than_one_generation_batch():
    args = config(gradient_accumulation_steps=16)
    with pytest.raises(ValueError, match="has 9 rows, but one generation batch needs 16"):
        build(Dataset.from_dict(ROWS), brief_reward, args)


@pytest.mark.parametrize(
    ("columns", "kwargs", "message"),
    [
        pytest.param({"prompt": []}, {}, "train_dataset has no rows", id="empty"),
        pytest.param(
            {"reference": ["a"] * 8},
            {},
            r"has the columns \['reference'\], but no `prompt`",
            id="none",
        ),
        pytest.param({"prompt": [["a"]] * 8}, {}, r"prompt of row 0 .* is \['a'\]", id="list"),
        pytest.param({"prompt": [7] * 8}, {}, "prompt of row 0 of train_dataset is 7", id="number"),
        pytest.param(
            ROWS, {"eval_dataset": Dataset.from_dict({"prompt": ["a"]})},
            "recall_reward needs .*reference.* eval_dataset only has prompt", id="eval_set",
        ),
        pytest.param(
            ROWS, {"eval_dataset": {"test": Dataset.from_dict({"prompt": []})}},
            r"eval_dataset\['test'\] has no rows", id="one_of_the_eval_sets",
        ),
    ],
)  # fmt: skip
def test_datasets_that_cannot_be_trained_on(columns, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(Dataset.from_dict(columns), RecallReward("scenes/oracle"), **kwargs)


def test_a_class_in_place_of_a_reward_is_named():
    with pytest.raises(ValueError, match=r"reward_funcs\[1\] is the class RecallReward.* Use"):
        build(Dataset.from_dict(ROWS), [brief_reward, RecallReward])


def test_warns_of_rewards_without_weight_and_of_names_that_mix(caplog):
    with caplog.at_level(logging.WARNING):
        check_rewards([brief_reward, brief_reward], config(reward_weights=[0.0, 0.0]))
    assert "All reward_weights are 0" in caplog.text
    assert "2 reward functions are called 'brief_reward'" in caplog.text


def test_a_path_is_loaded_as_captions(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"image": "a.png", "caption": "Nothing."}
    (tmp_path / "captions.jsonl").write_text(json.dumps(row))
    path = tmp_path / "captions.jsonl"
    for given in (path, str(path)):
        assert loaded(given)[0]["reference"] == "Nothing."
    assert loaded({"test": path})["test"][0]["reference"] == "Nothing."
    stream = IterableDataset.from_generator(lambda: iter([row]))
    assert loaded(stream) is stream


def test_any_error_of_a_preflight_is_said_before_the_model_is_loaded():
    class Broken(JudgeReward):
        __name__ = "broken"

        def preflight(self):
            raise ImportError("no module named provider")

    with pytest.raises(RuntimeError, match="The judge cannot work: ImportError: no module"):
        build(Dataset.from_dict(ROWS), [Broken("scenes/oracle")])


def test_names_of_gated_rewards_are_a_list():
    with pytest.raises(ValueError, match=r"Use \['linguistic_reward'\]"):
        config(length_gated_rewards="linguistic_reward")
    with pytest.raises(ValueError, match="but the reward functions are"):
        build(
            Dataset.from_dict(ROWS),
            [PrecisionReward("scenes/oracle")],
            config(length_gated_rewards=["precision"]),
        )


def test_credit_needs_a_reward_that_judges_assertions():
    rows = Dataset.from_dict(ROWS)
    with pytest.raises(ValueError, match=r"such as PrecisionReward.*\['linguistic_reward'\]"):
        build(rows, [LinguisticReward("scenes/oracle")], config(credit="assertion"))
    with pytest.raises(ValueError, match="importance_sampling_level='token'"):
        config(credit="assertion", importance_sampling_level="sequence")
