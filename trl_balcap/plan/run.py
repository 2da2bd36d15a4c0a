"""`trl-balcap plan`: whether a recipe fits its GPUs, and how much it asks its judges."""

import dataclasses
import math
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from packaging.version import Version
from trl import ModelConfig, get_peft_config

from trl_balcap.config import judge_options, needs_references
from trl_balcap.data import DEFAULT_PROMPT, check_size
from trl_balcap.inputs import check_weights
from trl_balcap.judge.cost import CHARS_PER_TOKEN
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.plan.batch import GenerationBatch
from trl_balcap.plan.images import ImageTokens, image_tokens
from trl_balcap.plan.judging import JudgingPlan, Price, judging_plan
from trl_balcap.plan.memory import MemoryPlan, Setup, memory_plan
from trl_balcap.plan.model import ModelShape, load_config, model_shape
from trl_balcap.plan.recipe import Launch, Recipe, read_launch, read_recipe
from trl_balcap.plan.sample import Sample, sample_dataset

__all__ = ["RunPlan", "make_plan"]

# Tokens of a chat template and a system message around the user's text.
_TEMPLATE_TOKENS = 40


@dataclass(frozen=True)
class RunPlan:
    """A planned run: everything that `trl-balcap plan` prints."""

    settings: Recipe
    launch: Launch
    shape: ModelShape
    setup: Setup
    batch: GenerationBatch
    image: ImageTokens  # the largest in the sample
    prompt_tokens: int  # without the image
    sample: Sample | None
    memory: MemoryPlan
    judging: JudgingPlan
    gpu_memory: float
    steps: int | None  # optimizer steps of the run, if known

    @property
    def fits(self) -> bool:
        return self.memory.fits(self.gpu_memory)


def make_plan(
    config: str | None,
    flags: list[str] | None = None,
    *,
    accelerate_config: str | None = None,
    num_processes: int | None = None,
    gpu_memory: float = 80.0,
    tokens_per_image: int | None = None,
    judge_price: Price | None = None,
    network: bool = False,
    without_data: bool = False,
) -> RunPlan:
    """
    Plan a recipe.

    Args:
        config (`str`, *optional*): The recipe's YAML file.
        flags (`list[str]`, *optional*): Training script flags that override it.
        accelerate_config (`str`, *optional*): Accelerate config. Defaults to the recipe's.
        num_processes (`int`, *optional*): Number of GPUs. Defaults to the accelerate config's.
        gpu_memory (`float`, *optional*, defaults to `80.0`): Memory of one GPU in GiB.
        tokens_per_image (`int`, *optional*): Tokens per image, for models with an unknown rule.
        judge_price (`tuple[float, float]`, *optional*): Judge's price in dollars per million prompt
            and completion tokens. Defaults to litellm's table.
        network (`bool`, *optional*, defaults to `False`): Whether to download the model's config
            from the Hub.
        without_data (`bool`, *optional*, defaults to `False`): Assume images and captions of
            typical size instead of reading the dataset.

    Raises:
        `FileNotFoundError`: if the recipe, its accelerate config or its dataset does not exist.
        `ValueError`: if the settings cannot work on any GPU.
    """
    if not gpu_memory > 0:
        raise ValueError(f"gpu_memory must be above 0 GiB, got {gpu_memory:g}.")
    if tokens_per_image is not None and tokens_per_image < 1:
        raise ValueError(f"image_tokens must be 1 or more, got {tokens_per_image}.")
    if judge_price is not None and not min(judge_price) >= 0:
        raise ValueError(
            "judge_price must be two prices in dollars per million tokens, 0 or more, got "
            f"{judge_price[0]:g} and {judge_price[1]:g}."
        )
    settings = read_recipe(config, flags or [])
    check_weights(settings.reward_weights, len(settings.rewards))
    judge = judge_options(settings)
    if judge_price is not None:
        judge["price"] = judge_price
    if settings.model_name_or_path is None:
        raise ValueError("The recipe names no model. Set model_name_or_path.")
    file = accelerate_config or settings.accelerate_config
    launch = read_launch(file, config)
    if num_processes is not None:
        rest = "no accelerate config" if file is None else launch.source
        launch = dataclasses.replace(
            launch, processes=num_processes, source=f"--num-processes, {rest}"
        )
    if settings.deepspeed is not None and not launch.zero_stage:
        raise ValueError(
            "The ZeRO stage is read from an accelerate config, but this recipe sets deepspeed="
            f"{settings.deepspeed}. Pass an accelerate config with --accelerate-config."
        )
    peft_config = get_peft_config(_model_config(settings)) if settings.use_peft else None
    model = load_config(settings.model_name_or_path, network=network)
    shape = model_shape(settings.model_name_or_path, model, peft_config)
    batch = _batch(settings, launch)
    sample = None
    if settings.dataset is not None and not without_data:
        sample = sample_dataset(
            settings.dataset,
            split=settings.dataset_split,
            max_pixels=settings.max_pixels,
            references=needs_references(settings.rewards, settings),
        )
        check_size(
            sample.rows,
            generation_batch_size=batch.completions,
            num_generations=batch.num_generations,
            global_batch_size=batch.per_device_train_batch_size * batch.processes,
            name=settings.dataset,
        )
    image = _largest_image(model, sample, settings.max_pixels, tokens_per_image)
    prompt_tokens = _TEMPLATE_TOKENS + math.ceil(
        len((settings.prompt or DEFAULT_PROMPT).encode()) / CHARS_PER_TOKEN
    )
    setup = _setup(settings, launch)
    steps = settings.max_steps if settings.max_steps > 0 else None
    if steps is None and sample is not None:
        steps = batch.steps(sample.rows, settings.num_train_epochs)
    return RunPlan(
        settings=settings,
        launch=launch,
        shape=shape,
        setup=setup,
        batch=batch,
        image=image,
        prompt_tokens=prompt_tokens,
        sample=sample,
        memory=memory_plan(
            shape,
            setup,
            batch,
            image=image,
            prompt_tokens=prompt_tokens,
            completion_tokens=settings.max_completion_length,
            gpu_memory=gpu_memory,
        ),
        judging=judging_plan(
            batch,
            sample,
            steps,
            JudgeSettings(**judge),
            rewards=settings.rewards,
        ),
        gpu_memory=gpu_memory,
        steps=steps,
    )


def _model_config(settings: Recipe) -> ModelConfig:
    names = {field.name for field in dataclasses.fields(ModelConfig)}
    return ModelConfig(**{key: value for key, value in vars(settings).items() if key in names})


def _batch(settings: Recipe, launch: Launch) -> GenerationBatch:
    steps = settings.steps_per_generation
    if settings.generation_batch_size is not None:
        width = settings.per_device_train_batch_size * launch.processes
        if steps is not None or settings.generation_batch_size % width:
            raise ValueError(
                f"generation_batch_size ({settings.generation_batch_size}) must be a multiple of "
                f"per_device_train_batch_size x processes ({width}), and be set without "
                "steps_per_generation."
            )
        steps = settings.generation_batch_size // width
    return GenerationBatch(
        per_device_train_batch_size=settings.per_device_train_batch_size,
        processes=launch.processes,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_generations=settings.num_generations,
        steps_per_generation=steps,
        num_iterations=settings.num_iterations,
    )


def _setup(settings: Recipe, launch: Launch) -> Setup:
    return Setup(
        processes=launch.processes,
        processes_per_machine=launch.processes // launch.machines,
        zero_stage=launch.zero_stage,
        offload_optimizer=launch.offload_optimizer,
        offload_param=launch.offload_param,
        weights=settings.dtype,
        bf16=settings.bf16 is not False,  # TRL's default is True
        optim=str(getattr(settings.optim, "value", settings.optim)),
        peft=settings.use_peft,
        bits=4 if settings.load_in_4bit else 8 if settings.load_in_8bit else 16,
        gradient_checkpointing=settings.gradient_checkpointing,
        reference_model=settings.beta != 0.0,
        gather_for_generation=settings.ds3_gather_for_generation,
        vllm=settings.vllm_mode if settings.use_vllm else None,
        vllm_share=settings.vllm_gpu_memory_utilization,
        vllm_sleeps=settings.vllm_enable_sleep_mode,
        fused_head=Version(version("trl")) >= Version("1.15"),
    )


def _largest_image(
    model: Any, sample: Sample | None, max_pixels: int, tokens: int | None
) -> ImageTokens:
    if tokens is not None:
        return ImageTokens(tokens, 4 * tokens, 1176, "given with --image-tokens")
    # Without data: a square image that fills max_pixels.
    side = math.isqrt(max_pixels)
    sizes = sample.sizes if sample is not None else ((side, side),)
    images = [image_tokens(model, *size) for size in sizes]
    return max(images, key=lambda image: image.tokens)
