"""
Memory of one GPU in a GRPO step, term by term, with formulas.

Counted: weights, gradients, optimizer, and the larger of two phases (generation, training). Not
counted: fragmentation of the allocator, which `HEADROOM` allows for. The activation terms count
what PyTorch keeps for one Llama-like layer in bf16 with fused attention (SDPA or flash), so no term
grows with the square of the sequence length. None of this has been measured on a GPU yet
(docs/scale.md).
"""

from dataclasses import dataclass

from trl_balcap.plan.batch import GenerationBatch
from trl_balcap.plan.images import ImageTokens
from trl_balcap.plan.model import ModelShape, Tower

__all__ = ["GIB", "HEADROOM", "MemoryPlan", "Setup", "Term", "memory_plan"]

GIB = 2**30
# Left free for CUDA context, NCCL, cuBLAS workspaces and fragmentation.
HEADROOM = 0.08

# Bytes of optimizer state per trained parameter, in units of one state value's size: AdamW keeps 2.
_STATES = {
    "adamw_torch": 2,
    "adamw_torch_fused": 2,
    "sgd": 0,
}
_STATES_8BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")

# DeepSpeed's defaults, in elements: gathered by ZeRO-3, and collected for a reduction.
_LIVE = 1_000_000_000
_BUCKET = 500_000_000
_SUB_GROUP = 1_000_000_000


@dataclass(frozen=True)
class Setup:
    """How a run uses its GPUs: the parts of the recipe and accelerate config that affect memory."""

    processes: int = 1
    processes_per_machine: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_param: bool = False
    weights: str = "bfloat16"  # ModelConfig.dtype
    bf16: bool = True
    optim: str = "adamw_torch_fused"
    peft: bool = False
    bits: int = 16  # 8 or 4 for a quantised base model
    gradient_checkpointing: bool = True
    reference_model: bool = False
    gather_for_generation: bool = True
    vllm: str | None = None  # "server" or "colocate"
    vllm_share: float = 0.0  # of the GPU, in colocate mode
    vllm_sleeps: bool = False  # vLLM releases its share while the model trains
    fused_head: bool = True  # TRL 1.15 and later never hold all logits at once


@dataclass(frozen=True)
class Term:
    """One line of the memory table."""

    name: str
    bytes: float
    formula: str


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of one GPU, at all times and additionally in each phase; and memory of the host."""

    static: tuple[Term, ...]
    generating: tuple[Term, ...]
    training: tuple[Term, ...]  # one micro-batch, forward and backward
    stepping: tuple[Term, ...]  # the optimizer's step
    host: float  # bytes per machine, offloaded

    @property
    def generation_peak(self) -> float:
        return _total(self.static) + _total(self.generating)

    @property
    def training_peak(self) -> float:
        return _total(self.static) + max(_total(self.training), _total(self.stepping))

    @property
    def peak(self) -> float:
        """Bytes at the larger of the two phases."""
        return max(self.generation_peak, self.training_peak)

    def fits(self, gpu_memory: float) -> bool:
        """Whether the peak leaves `HEADROOM` free of `gpu_memory` GiB."""
        return self.peak <= gpu_memory * GIB * (1 - HEADROOM)


def _total(terms: tuple[Term, ...]) -> float:
    return sum(term.bytes for term in terms)


def memory_plan(
    shape: ModelShape,
    setup: Setup,
    batch: GenerationBatch,
    *,
    image: ImageTokens,
    prompt_tokens: int,
    completion_tokens: int,
    gpu_memory: float,
) -> MemoryPlan:
    """
    Estimate the memory of one GPU.

    Args:
        shape ([`ModelShape`]): The model.
        setup ([`Setup`]): How it uses the GPUs.
        batch ([`GenerationBatch`]): Completions per process and micro-batch.
        image ([`ImageTokens`]): One image.
        prompt_tokens (`int`): Tokens of the prompt without the image.
        completion_tokens (`int`): `max_completion_length`.
        gpu_memory (`float`): GiB of one GPU; vLLM in colocate mode takes its share of it.

    Returns:
        [`MemoryPlan`]

    Raises:
        `ValueError`: if the optimizer's memory is unknown.
    """
    static, stepping, host = _static(shape, setup)
    prompt = prompt_tokens + image.tokens
    generating = _generating(shape, setup, batch, image, prompt, completion_tokens)
    if setup.vllm == "colocate":
        share = setup.vllm_share * gpu_memory * GIB
        engine = Term("vLLM", share, f"{setup.vllm_share:g} of the GPU")
        (generating if setup.vllm_sleeps else static).append(engine)
    return MemoryPlan(
        static=tuple(static),
        generating=tuple(generating),
        training=tuple(_training(shape, setup, batch, image, prompt, completion_tokens)),
        stepping=tuple(stepping),
        host=host * setup.processes_per_machine,
    )


def _static(shape: ModelShape, setup: Setup) -> tuple[list[Term], list[Term], float]:
    trained, frozen = shape.trainable, shape.parameters - shape.trainable
    n = setup.processes
    stage = setup.zero_stage
    host = 0.0
    stepping: list[Term] = []
    if stage:
        # DeepSpeed in bf16: bf16 weights and gradients, float32 master weights and moments.
        weights = _frozen_bytes(shape, setup) + 2 * trained
        gradients = 2.0 * trained
        moments, moments_formula = _moments(setup.optim, trained, 4)
        optimizer = 4 * trained + moments
        shards = n if stage == 3 else 1
        gradient_shards = n if stage >= 2 else 1
        weight_formula = f"2 B x {shape.parameters:,}" + (f" / {n}" if shards > 1 else "")
        gradient_formula = f"2 B x {trained:,}" + (f" / {n}" if gradient_shards > 1 else "")
        optimizer_formula = f"(4 B master + {moments_formula}) x {trained:,} / {n}"
        weights, gradients, optimizer = weights / shards, gradients / gradient_shards, optimizer / n
        step = 4.0 * (min(trained / n, _SUB_GROUP) if stage == 3 else trained / n)
        if setup.offload_param:
            host += weights
            weights, weight_formula = 0.0, f"{weight_formula}, on the host"
        if setup.offload_optimizer:
            host += optimizer + 2 * gradients
            optimizer, optimizer_formula = 0.0, f"{optimizer_formula}, on the host"
            gradients, gradient_formula = 0.0, f"{gradient_formula}, on the host"
            step = 0.0
        terms = [
            Term("weights", weights, weight_formula),
            Term("gradients", gradients, gradient_formula),
            Term("optimizer", optimizer, optimizer_formula),
        ]
        stepping = [Term("float32 gradients", step, "4 B x gradients of one sub-group")]
        # A bucket is never larger than its contents.
        bucket = 2.0 * min(_BUCKET, trained) * (1 if stage == 3 else 2)
        live = 2.0 * min(_LIVE, shape.parameters) if stage == 3 else 2.0 * min(_BUCKET, trained)
        terms.append(
            Term("ZeRO buffers", bucket + live, "reduction bucket + gathered weights (DeepSpeed's)")
        )
    else:
        value = 4 if setup.weights == "float32" else 2
        adapter = 4 if setup.peft and setup.bits == 16 else value  # PEFT keeps adapters in float32
        moments, moments_formula = _moments(setup.optim, trained, adapter)
        copies = 2 if n > 1 else 1  # DDP's buckets are a second copy of the gradients
        terms = [
            Term(
                "weights",
                _frozen_bytes(shape, setup) + adapter * trained,
                f"{_frozen_bytes(shape, setup) / max(frozen, 1):.3g} B x {frozen:,} frozen + "
                f"{adapter} B x {trained:,} trained",
            ),
            Term(
                "gradients",
                float(copies * adapter * trained),
                f"{copies} x {adapter} B x {trained:,}"
                if copies > 1
                else f"{adapter} B x {trained:,}",
            ),
            Term("optimizer", moments, f"{moments_formula} x {trained:,}"),
        ]
        if value == 4 and setup.bf16:
            terms.append(
                Term("autocast", 2.0 * shape.parameters, f"2 B x {shape.parameters:,}, bf16 casts")
            )
    if setup.reference_model and not setup.peft:
        shards = n if stage == 3 else 1
        terms.append(
            Term(
                "reference model",
                2.0 * shape.parameters / shards,
                f"2 B x {shape.parameters:,}" + (f" / {n}" if shards > 1 else ""),
            )
        )
    return terms, stepping, host


def _frozen_bytes(shape: ModelShape, setup: Setup) -> float:
    frozen = shape.parameters - shape.trainable
    if setup.bits == 16:
        return frozen * (4.0 if setup.weights == "float32" and not setup.zero_stage else 2.0)
    # bitsandbytes quantises linear layers except the head; 4-bit adds a float32 per 64 values.
    quantised = min(shape.linear, frozen)
    return quantised * (4 / 8 + 4 / 64 if setup.bits == 4 else 1.0) + 2.0 * (frozen - quantised)


def _moments(optim: str, trained: int, value: int) -> tuple[float, str]:
    if optim in _STATES_8BIT:
        return 2.0 * trained, "2 x 1 B"
    if optim not in _STATES:
        raise ValueError(
            f"The memory of optim={optim!r} is unknown. Use one of "
            f"{', '.join([*_STATES, *_STATES_8BIT])}."
        )
    states = _STATES[optim]
    return float(states * value * trained), f"{states} x {value} B moments"


def _generating(
    shape: ModelShape,
    setup: Setup,
    batch: GenerationBatch,
    image: ImageTokens,
    prompt: int,
    completion: int,
) -> list[Term]:
    if setup.vllm is not None:
        return []
    rows = batch.completions_per_process
    language = shape.language
    terms = []
    if setup.zero_stage == 3 and setup.gather_for_generation:
        weights = 2.0 * shape.parameters
        terms.append(
            Term(
                "gathered weights",
                weights,
                f"2 B x {shape.parameters:,} (ds3_gather_for_generation)",
            )
        )
    cache = 2.0 * 2 * language.layers * language.key_values * rows * (prompt + completion)
    terms.append(
        Term(
            "key-value cache",
            cache,
            f"2 x 2 B x {language.layers} layers x {language.key_values} x {rows} rows x "
            f"({prompt} + {completion}) tokens",
        )
    )
    # Held at once by one layer of the prefill: the residual, its norm in float32, and the MLP.
    prefill = rows * prompt * (12.0 * language.hidden + 6.0 * language.intermediate)
    if shape.vision is not None:
        # The encoder runs before the language model: the larger of the two counts.
        vision = (
            rows * image.patches * (12.0 * shape.vision.hidden + 6.0 * shape.vision.intermediate)
        )
        prefill = max(prefill, vision) + 4.0 * rows * image.patches * image.patch_values
    terms.append(
        Term(
            "prefill", prefill, f"{rows} rows x {prompt} tokens x (12 B hidden + 6 B intermediate)"
        )
    )
    sampling = 3 * 4.0 * rows * shape.vocabulary
    terms.append(Term("sampling", sampling, f"3 x 4 B x {rows} rows x {shape.vocabulary} logits"))
    return terms


def _training(
    shape: ModelShape,
    setup: Setup,
    batch: GenerationBatch,
    image: ImageTokens,
    prompt: int,
    completion: int,
) -> list[Term]:
    rows = batch.per_device_train_batch_size
    tokens = rows * (prompt + completion)
    patches = rows * image.patches
    kept, layer = _tower_bytes(shape.language, setup.gradient_checkpointing, setup.peft)
    formula = (
        f"{tokens} tokens x {shape.language.layers} layers x {kept / shape.language.layers:,.0f} B"
    )
    activations = tokens * kept
    largest = tokens * layer
    if shape.vision is not None:
        vision_kept, vision_layer = _tower_bytes(
            shape.vision, setup.gradient_checkpointing, setup.peft
        )
        if shape.vision_trains:
            activations += patches * vision_kept
            formula += (
                f" + {patches} patches x {shape.vision.layers} layers x "
                f"{vision_kept / shape.vision.layers:,.0f} B"
            )
        largest = max(largest, patches * vision_layer)
        activations += 4.0 * batch.completions_per_process * image.patches * image.patch_values
        formula += f" + {batch.completions_per_process} images in float32"
    logits, logits_formula = _logits(shape, setup, rows, completion)
    # The head's backward ends before that of the last layer begins: the larger of the two counts.
    return [
        Term("activations kept", activations, formula),
        Term(
            "one layer, or the logits",
            max(largest, logits),
            f"max({largest / GIB:.2f} GiB, {logits_formula})",
        ),
    ]


def _tower_bytes(tower: Tower, checkpointing: bool, peft: bool) -> tuple[float, float]:
    """Bytes per token: kept for all layers, and held by the backward pass of one layer."""
    # Two RMS norms in float32 (16 B per hidden value with inputs and results), q, its rotation and
    # the attention's output, k and v, and gate, up, activation and product of the MLP. A test
    # compares this with what autograd saves for real layers.
    saved = 16.0 * tower.hidden + 6.0 * tower.heads + 4.0 * tower.key_values
    saved += 8.0 * tower.intermediate
    gradients = 4.0 * tower.intermediate + 4.0 * tower.hidden
    # PEFT keeps each adapted layer's input a second time, in the adapter's dtype.
    adapters = 4.0 * (3 * tower.hidden + tower.intermediate) if peft else 0.0
    kept = 2.0 * tower.hidden if checkpointing else saved + adapters
    return tower.layers * kept, saved + gradients + adapters


def _logits(shape: ModelShape, setup: Setup, rows: int, completion: int) -> tuple[float, str]:
    hidden = shape.language.hidden
    if not setup.fused_head:
        total = 2 * 2.0 * rows * (completion + 1) * shape.vocabulary
        return total, (
            f"{total / GIB:.2f} GiB logits = 2 x 2 B x {rows} x {completion + 1} x "
            f"{shape.vocabulary}"
        )
    # TRL's fused head: one tile of at most 4096 x 32768 logits, gradients summed in float32.
    tile = 2.0 * min(rows * completion, 4096) * min(shape.vocabulary, 32768)
    total = tile + 4.0 * rows * completion * hidden
    formula = f"logit tile 2 B x {min(rows * completion, 4096)} x {min(shape.vocabulary, 32768)}"
    if shape.head_trains:
        total += 6.0 * shape.head
        formula += f" + head gradient 6 B x {shape.head:,}"
    return total, f"{total / GIB:.2f} GiB = {formula}"
