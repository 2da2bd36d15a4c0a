"""Full weights of a vision-language model come back from a checkpoint."""

import json
import os
import subprocess
import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, pipeline

from tests.test_trainer import CPU, even_reward
from tests.two_ranks import ROOT, free_port
from trl_balcap import BalCapConfig, BalCapTrainer, LinguisticReward
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
    assert "by their Hub names" in caplog.text


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


def test_a_saved_captioner_captions_at_once_and_has_its_card(tiny_qwen, scenes, tmp_path):
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [even_reward, LinguisticReward("scenes/oracle")],
        BalCapConfig(str(tmp_path / "run"), **{**CPU, "max_steps": 1}, reward_weights=[2.0, 0.5]),
        train_dataset=scenes,
    )
    trainer.train()
    folder = tmp_path / "captioner"
    trainer.save_model(str(folder))

    settings = json.loads((folder / "captioning.json").read_text())
    assert settings == {"prompt": "Describe the image.", "max_new_tokens": 8}
    captioner: Any = pipeline("image-text-to-text", model=str(folder))
    content = [{"type": "image", "image": scenes[0]["image"]}]
    content.append({"type": "text", "text": settings["prompt"]})
    [said] = captioner(text=[{"role": "user", "content": content}], return_full_text=False)
    ids = captioner.processor.tokenizer(said["generated_text"])["input_ids"]
    assert 0 < len(ids) <= 8 + 2  # decoded and encoded again

    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers")
    assert f"model={str(folder)!r}" in card
    assert "| `even_reward` | 2 | no | a function |" in card
    assert "| `linguistic_reward` | 0.5 | yes | Judge('scenes/oracle')" in card
    assert "0.5 to 2 times the reference's tokens" in card
    assert "arXiv:2605.07394" in card
    assert "vonwerra2020trl" in card
    assert "DeepSeekMath" not in card
    assert "| rewards/even_reward/mean |" in card
    assert "arXiv:2605.07394" in (tmp_path / "run" / "README.md").read_text()


def test_two_machines_without_a_shared_disk_save_a_checkpoint_each(tiny_qwen, tmp_path):
    ranks = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    ranks |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    machines = [
        subprocess.Popen(
            [sys.executable, "tests/workers/two_machines.py", str(tiny_qwen), str(tmp_path / rank)],
            cwd=ROOT,
            env={**os.environ, **ranks, "RANK": rank, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        for machine in machines:
            _, errors = machine.communicate(timeout=140)
            assert machine.returncode == 0, errors[-3000:]
    finally:
        for machine in machines:
            machine.kill()
    for rank in "01":
        saved = {file.name for file in (tmp_path / rank / "checkpoint-1").iterdir()}
        assert "captioning.json" in saved
        assert ("README.md" in saved) == (rank == "0")  # TRL's card, too, is only there
