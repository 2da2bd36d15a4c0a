"""The plan: parameter counts, batch arithmetic, image tokens, and memory by hand."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import skimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from transformers import AutoModelForImageTextToText

from trl_balcap.cli import main
from trl_balcap.plan import GenerationBatch, Setup, memory_plan, model_shape
from trl_balcap.plan.images import ImageTokens, image_tokens
from trl_balcap.plan.memory import GIB, _tower_bytes
from trl_balcap.plan.model import ModelShape, Tower, load_config
from trl_balcap.plan.notes import notes
from trl_balcap.plan.recipe import Launch, read_launch, read_recipe
from trl_balcap.plan.run import make_plan
from trl_balcap.plan.ways_out import LANGUAGE_LORA, ways_out

QWEN_3B, QWEN_7B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
LLAVA = "llava-hf/llava-1.5-7b-hf"


def write(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    return str(file)


# --- parameters ---


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


# --- batches ---


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


# --- tokens of an image ---


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


# --- memory ---

TOWER = Tower(layers=2, hidden=100, intermediate=400, heads=100, key_values=50)
SHAPE = ModelShape(
    name="made up",
    model_type="qwen2_5_vl",
    parameters=8_000_000_000,
    trainable=8_000_000_000,
    linear=7_000_000_000,
    head=100_000_000,
    head_trains=True,
    vision_trains=False,
    vocabulary=1_000_000,
    language=TOWER,
    vision=None,
    config=None,
)
BATCH = GenerationBatch(1, processes=8, gradient_accumulation_steps=8, num_generations=8)
NO_IMAGE = ImageTokens(0, 0, 0, "none")


def plan_memory(shape=SHAPE, batch=BATCH, **setup):
    return memory_plan(
        shape,
        Setup(**setup),
        batch,
        image=NO_IMAGE,
        prompt_tokens=10,
        completion_tokens=90,
        gpu_memory=80.0,
    )


def gigabytes(memory) -> dict[str, float]:
    terms = (*memory.static, *memory.generating, *memory.training, *memory.stepping)
    return {term.name: term.bytes / 1e9 for term in terms}


def test_zero_3_shares_out_all_16_bytes_of_a_parameter():
    """8e9 parameters on 8 GPUs: 2 B weights, 2 B gradients, 4 + 4 + 4 B of AdamW in float32."""
    found = gigabytes(plan_memory(processes=8, zero_stage=3))
    assert found["weights"] == 2.0
    assert found["gradients"] == 2.0
    assert found["optimizer"] == 12.0
    assert found["float32 gradients"] == 4.0
    assert found["gathered weights"] == 16.0


def test_zero_2_keeps_the_weights_on_every_gpu():
    found = gigabytes(plan_memory(processes=8, zero_stage=2))
    assert (found["weights"], found["gradients"], found["optimizer"]) == (16.0, 2.0, 12.0)
    assert "gathered weights" not in found


def test_offloading_moves_gradients_and_optimizer_to_the_host():
    memory = plan_memory(processes=8, processes_per_machine=8, zero_stage=3, offload_optimizer=True)
    found = gigabytes(memory)
    assert (found["weights"], found["gradients"], found["optimizer"]) == (2.0, 0.0, 0.0)
    # 12 B of AdamW and gradients in bf16 and float32, for all 8 shares of the machine.
    assert memory.host == 8e9 * (12 + 4)


def test_without_zero_the_optimizer_keeps_the_weights_dtype():
    bf16 = gigabytes(plan_memory())
    assert (bf16["weights"], bf16["gradients"], bf16["optimizer"]) == (16.0, 16.0, 32.0)
    float32 = gigabytes(plan_memory(weights="float32"))
    assert (float32["weights"], float32["gradients"], float32["optimizer"]) == (32.0, 32.0, 64.0)
    assert float32["autocast"] == 16.0
    assert gigabytes(plan_memory(processes=2))["gradients"] == 32.0  # DDP's buckets
    assert gigabytes(plan_memory(optim="adamw_8bit"))["optimizer"] == 16.0


def test_an_adapter_leaves_the_base_at_2_bytes_and_trains_in_float32():
    adapter = dataclasses.replace(
        SHAPE, parameters=8_010_000_000, trainable=10_000_000, head_trains=False
    )
    found = gigabytes(plan_memory(adapter, peft=True))
    assert found["weights"] == pytest.approx(16.0 + 0.04)
    assert (found["gradients"], found["optimizer"]) == (0.04, 0.08)
    # 4 bits with a float32 per 64 values: 0.5625 B for 7e9 of them, 2 B for the other 1e9.
    quantised = gigabytes(plan_memory(adapter, peft=True, bits=4))
    assert quantised["weights"] == pytest.approx(7 * 0.5625 + 2.0 + 0.02)


def test_the_reference_model_is_a_second_set_of_weights_unless_there_is_an_adapter():
    assert gigabytes(plan_memory(reference_model=True))["reference model"] == 16.0
    assert "reference model" not in gigabytes(plan_memory(reference_model=True, peft=True))


def test_generation_by_hand():
    """8 rows at once x 100 tokens x 2 layers x (50 keys + 50 values) x 2 B; 3 x 4 B of logits."""
    found = gigabytes(plan_memory())
    assert found["key-value cache"] * 1e9 == 8 * 100 * 2 * 100 * 2
    assert found["sampling"] * 1e9 == 3 * 4 * 8 * 1_000_000
    assert plan_memory(vllm="server").generating == ()
    assert gigabytes(plan_memory(vllm="colocate", vllm_share=0.25))["vLLM"] == pytest.approx(
        20 * GIB / 1e9
    )


def test_logits_by_hand():
    """1 row x 90 completion tokens. Fused: one tile of 90 x 32768 in bf16, the hidden states'
    gradient and the head's in float32 (and its bf16 cast). Not fused: all logits, and their
    gradient."""
    fused = 2 * 90 * 32768 + 4 * 90 * 100 + 6 * 100_000_000
    assert gigabytes(plan_memory())["one layer, or the logits"] * 1e9 == pytest.approx(fused)
    whole = 2 * 2 * 91 * 1_000_000
    assert gigabytes(plan_memory(fused_head=False))["one layer, or the logits"] * 1e9 == whole


def test_an_optimizer_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"optim='adafactor' is unknown.*adamw_torch"):
        plan_memory(optim="adafactor")


@pytest.mark.parametrize("name", [QWEN_3B, LLAVA])
def test_activations_are_those_that_autograd_saves(name):
    """A narrow copy of the real language model: what its backward needs, byte for byte counted."""
    config = load_config(name)
    text = config.get_text_config()
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 1376, 4
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 128
    text.vocab_size, text.layer_types = 1000, ["full_attention"] * 4
    vision = config.vision_config
    vision.depth = vision.num_hidden_layers = 2
    vision.out_hidden_size = 512
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor  # kept alive, so addresses differ
        return tensor

    embeddings = torch.randn(2, 64, 512, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model.language_model(inputs_embeds=embeddings, use_cache=False)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())

    kept, _ = _tower_bytes(Tower(4, 512, 1376, 512, 256), checkpointing=False, peft=False)
    assert 2 * 64 * kept == pytest.approx(measured, rel=0.15)


# --- recipes and accelerate files ---


def test_a_recipe_is_read_without_a_gpu_and_flags_override_it(tmp_path):
    recipe = write(tmp_path / "r.yaml", "num_generations: 4\nlearning_rate: 1.0e-6\nbf16: true\n")
    settings = read_recipe(recipe, ["--num_generations", "16"])
    assert (settings.num_generations, settings.learning_rate, settings.bf16) == (16, 1e-6, True)


def test_what_a_recipe_may_not_say(tmp_path):
    recipe = write(tmp_path / "r.yaml", "num_generation: 4\n")
    with pytest.raises(ValueError, match=r"r\.yaml has unknown keys: num_generation"):
        read_recipe(recipe, [])
    with pytest.raises(ValueError, match=r"Unknown flags: --groups 4"):
        read_recipe(None, ["--groups", "4"])
    with pytest.raises(FileNotFoundError, match=r"File not found: .*gone\.yaml"):
        read_recipe(tmp_path / "gone.yaml", [])
    with pytest.raises(ValueError, match=r"contains a list, not settings"):
        read_recipe(write(tmp_path / "l.yaml", "- 1\n"), [])


def test_launch_from_accelerate_files(tmp_path):
    deepspeed = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
    write(tmp_path / "ds.json", json.dumps(deepspeed))
    beside = write(
        tmp_path / "a.yaml",
        "distributed_type: DEEPSPEED\nnum_processes: 4\nnum_machines: 2\n"
        "deepspeed_config: {deepspeed_config_file: ds.json}\n",
    )
    assert read_launch(beside) == Launch(4, 2, 3, True, False, beside)
    ddp = write(tmp_path / "b.yaml", "distributed_type: MULTI_GPU\nnum_processes: 2\n")
    assert read_launch("b.yaml", recipe=tmp_path / "recipe.yaml") == Launch(2, source=ddp)
    fsdp = write(tmp_path / "c.yaml", "distributed_type: FSDP\nnum_processes: 2\n")
    with pytest.raises(ValueError, match=r"distributed_type FSDP, but must have DEEPSPEED"):
        read_launch(fsdp)


# --- the command ---


def captions_folder(folder: Path, words: int = 100) -> Path:
    photo = Path(skimage.__file__).parent / "data" / "coffee.png"  # 600 x 400
    rows = [{"image": str(photo), "reference": "word " * words}] * 12
    write(folder / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_dataset_on_disk_gives_image_sizes_lengths_and_the_run(tmp_path):
    """600 x 400 px is 21 x 14 tokens; 500 bytes a reference; 12 rows in batches of 2 prompts."""
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(captions_folder(tmp_path))]
    flags += ["--per_device_train_batch_size", "16", "--num_train_epochs", "3"]

    plan = make_plan(None, flags)

    assert plan.image.tokens == 21 * 14
    assert plan.sample is not None
    assert plan.sample.reference_tokens == pytest.approx(500 / 4)
    assert plan.steps == 3 * 12 // 2


def test_judging_by_hand(tmp_path):
    """16 completions of 2 prompts a batch, 4 questions each and 2 references: 66 calls; 6 steps, of
    which the last 3 x 2 batches see the same 12 references again."""
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(captions_folder(tmp_path))]
    flags += ["--per_device_train_batch_size", "16", "--num_train_epochs", "2"]

    judging = make_plan(None, flags, judge_price=(1.0, 10.0)).judging

    assert judging.batch.calls == 4 * 16 + 2
    assert judging.run is not None
    assert judging.run.calls == 12 * 4 * 16 + 12
    paid = judging.run.prompt_tokens * 1.0 + judging.run.completion_tokens * 10.0
    assert judging.run.usd == pytest.approx(paid / 1e6)
    fused = make_plan(None, [*flags, "--judge_profile", "fused"]).judging
    assert fused.batch.calls == 2 * 16 + 2


def test_a_run_without_references_is_planned_by_its_own_rewards_and_band(tmp_path):
    """16 completions a batch: one question each of language, two of precision."""
    file = tmp_path / "bare.jsonl"
    photo = Path(skimage.__file__).parent / "data" / "coffee.png"
    write(file, (json.dumps({"image": str(photo)}) + "\n") * 12)
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(file)]
    flags += ["--per_device_train_batch_size", "16", "--rewards", "precision", "linguistic"]
    with pytest.raises(ValueError, match="has no reference column"):
        make_plan(None, flags)

    plan = make_plan(None, [*flags, "--length_gate_tokens", "60", "600"])

    assert plan.judging.batch.calls == 3 * 16
    said = "\n".join(notes(plan))
    assert "12 rows without references" in said
    assert "open to 600 tokens (length_gate_tokens)" in said
    assert "Raise it to 640" in said


def test_prices_come_from_the_table_on_disk():
    flags = ["--model_name_or_path", LLAVA, "--judge_model", "openai/gpt-4o-mini"]
    judging = make_plan(None, flags).judging
    assert judging.price == (0.15, 0.6, 0.075)
    assert judging.batch.usd is not None
    assert make_plan(None, [*flags, "--judge_api_base", "http://judge/v1"]).judging.price is None


def test_the_command_prints_terms_and_verdict(tmp_path, capsys):
    folder = captions_folder(tmp_path, words=300)
    recipe = write(
        tmp_path / "r.yaml",
        f"model_name_or_path: {QWEN_3B}\ndtype: bfloat16\ndataset: {folder}\nbf16: true\n"
        "per_device_train_batch_size: 2\ngradient_accumulation_steps: 8\n",
    )
    assert main(["plan", "--config", recipe, "--gpu_memory", "80"]) == 0
    page = capsys.readouterr().out
    assert "3,754,622,976" in page
    assert "2 x 1 GPUs x 8 micro-batches = 16 completions = 2 prompts x 8" in page
    assert "\nfits: " in page
    # 1500 bytes / 4 x 2.0 = 750 tokens, beyond the default of 512: 768 is the next 64.
    assert "open to 750 tokens" in page
    assert "Raise it to 768" in page
    assert "is unknown" not in page  # the exact judge is free

    assert main(["plan", "--config", recipe, "--gpu_memory", "24"]) == 1
    page = capsys.readouterr().out
    assert "does not fit" in page
    assert "use_peft" in page


def test_bad_settings_leave_the_command_in_one_line(tmp_path, capsys):
    recipe = write(tmp_path / "r.yaml", f"model_name_or_path: {QWEN_3B}\nnum_generations: 7\n")
    with pytest.raises(SystemExit, match="1"):
        main(["plan", "--config", recipe])
    assert "not a multiple of num_generations (7)" in capsys.readouterr().err


def test_ways_out_fit_when_they_are_taken():
    """7B, all weights: too much for one GPU; ZeRO-3 on 8 of them is enough."""
    flags = ["--model_name_or_path", QWEN_7B, "--dtype", "bfloat16", "--bf16", "true"]
    zero_2 = str(Path(__file__).parents[2] / "examples/accelerate/zero2.yaml")
    plan = make_plan(None, flags, accelerate_config=zero_2, gpu_memory=40.0)
    assert not plan.fits
    assert any("ZeRO-3 with the optimizer on the host" in way for way in ways_out(plan))

    offloaded = str(Path(__file__).parents[2] / "examples/accelerate/zero3-offload.yaml")
    fixed = make_plan(None, flags, accelerate_config=offloaded, gpu_memory=40.0)
    assert fixed.fits


def test_where_nothing_helps_the_plan_says_so():
    flags = ["--model_name_or_path", QWEN_7B, "--dtype", "bfloat16", "--bf16", "true"]
    [way] = ways_out(make_plan(None, flags, gpu_memory=2.0))
    assert way.startswith("larger GPUs or a smaller model: with ")
    assert "use_peft" in way


def test_an_unknown_rule_for_images_can_be_given():
    config = load_config(LLAVA)
    config.model_type = "llava_next"
    with pytest.raises(ValueError, match=r"model type 'llava_next'. Pass it with --image-tokens"):
        image_tokens(config, 448, 448)
    plan = make_plan(None, ["--model_name_or_path", LLAVA], tokens_per_image=2880)
    assert plan.image.tokens == 2880


# --- what cannot be planned ---


def test_a_dataset_that_is_not_there_is_no_stand_in():
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", "photos/gone.jsonl"]
    with pytest.raises(
        FileNotFoundError, match=r"File or folder not found: photos/gone\.jsonl.*--without"
    ):
        make_plan(None, flags)
    plan = make_plan(None, flags, without_data=True)
    assert plan.sample is None
    assert plan.fits


def test_a_dataset_smaller_than_one_generation_batch_is_refused(tmp_path):
    """12 rows, 16 prompts a batch: 8 x 16 / 8. With 12 micro-batches it is 12 prompts."""
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(captions_folder(tmp_path))]
    flags += ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps"]
    with pytest.raises(ValueError, match=r"has 12 rows.*needs 16 .*steps_per_generation=12"):
        make_plan(None, [*flags, "16"])
    assert make_plan(None, [*flags, "12"]).batch.prompts == 12


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
