"""Full weights of a vision-language model come back from a checkpoint."""

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.test_trainer import CPU, even_reward
from trl_balcap import BalCapConfig, BalCapTrainer
from trl_balcap.checkpoints import load_renamed_weights


def zeroed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_renamed_weights_are_loaded(tiny_llava):
    expected = AutoModelForImageTextToText.from_pretrained(tiny_llava).state_dict()
    model = zeroed(AutoModelForImageTextToText.from_pretrained(tiny_llava))

    assert load_renamed_weights(model, tiny_llava)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected[name])


def test_shards_of_renamed_weights_are_loaded(tiny_qwen, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(tiny_qwen)
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()

    assert load_renamed_weights(zeroed(model), tmp_path)
    assert all(torch.equal(model.state_dict()[name], expected[name]) for name in expected)


def test_a_mixed_model_is_not_rounded(tiny_qwen, tmp_path, caplog):
    model = AutoModelForImageTextToText.from_pretrained(tiny_qwen)  # float32
    model.model.language_model.to(torch.bfloat16)
    with torch.no_grad():
        model.model.visual.patch_embed.proj.weight.fill_(1 / 3)  # no number of bfloat16
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path)

    model.model.visual.to(torch.bfloat16).float()  # what is in memory is not what was saved
    assert load_renamed_weights(zeroed(model), tmp_path)
    assert all(torch.equal(model.state_dict()[name], expected[name]) for name in expected)
    assert "were found under their names on the Hub, and loaded" in caplog.text


def test_weights_under_their_own_names_are_left_to_the_trainer(tiny_text, tmp_path):
    model = zeroed(AutoModelForCausalLM.from_pretrained(tiny_text))
    assert not load_renamed_weights(model, tiny_text)
    assert not load_renamed_weights(model, tmp_path)  # as for an adapter: no such file
    assert not any(parameter.any() for parameter in model.parameters())


def fading_reward(completion_ids, trainer_state, **kwargs):
    """Best at the first step, whatever the model does."""
    return [-float(trainer_state.global_step)] * len(completion_ids)


def test_the_best_model_is_the_one_in_memory_at_the_end(tiny_qwen, scenes, tmp_path):
    config = {
        **CPU,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_rewards/fading_reward/mean",
    }
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [even_reward, fading_reward],
        BalCapConfig(str(tmp_path), **config),
        train_dataset=scenes,
        eval_dataset=scenes.select(range(2)),
    )
    trainer.train()

    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    best = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-1").state_dict()
    last = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    assert trainer.model is not None
    held = trainer.model.state_dict()
    assert all(torch.equal(held[name], weight) for name, weight in best.items())
    assert any(not torch.equal(held[name], weight) for name, weight in last.items())
