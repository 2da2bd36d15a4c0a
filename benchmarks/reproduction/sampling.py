"""Generation for tiny Qwen2.5-VL models on a CPU, where Python overhead per token dominates.

`model.generate` computes every row until the last one ends, processes each image once per rollout,
and spends more time between the layers than in them. [`FastSampler`] does the same arithmetic, but
shrinks the batch as rows end, prefills each image once, and has nothing but tensors in the loop. On
one core of a busy machine 64 greedy captions of 96 tokens took 0.7 to 0.9 s instead of 1.6 to
2.0 s, with no row ending early; each row that ends early saves more. A static cache and
`torch.compile` were not tried, because both keep finished rows.
`tests/benchmarks/test_reproduce_sampling.py` checks the sampler against `model.generate`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FastSampler", "share_images"]

_SHRINK_EVERY = 4  # tokens between checks for finished rows


class FastSampler:
    """
    A replacement for `model.generate` of a Qwen2.5-VL: `model.generate = FastSampler(model)`.

    It decodes greedily, or samples from the whole distribution at the temperature of the generation
    config (top-k and top-p are refused). All prompts must have the same length and all images the
    same size, as is the case for scenes.

    Args:
        model (`Qwen2_5_VLForConditionalGeneration`): The captioner; its weights are read on
            each call.
    """

    def __init__(self, model: Any):
        self.model = model

    @torch.no_grad()
    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        generation_config: Any = None,
        *,
        do_sample: bool | None = None,
        max_new_tokens: int | None = None,
        **inputs: Any,
    ) -> Tensor:
        """
        Args:
            input_ids (`torch.Tensor`): Prompts of shape `(B, T)`.
            attention_mask (`torch.Tensor`): All ones, of shape `(B, T)`.
            generation_config (`GenerationConfig`, *optional*): Defaults to the model's.
            do_sample (`bool`, *optional*), max_new_tokens (`int`, *optional*): Override the config.
            **inputs: `pixel_values`, `image_grid_thw`, `mm_token_type_ids`, as returned by the
            processor.

        Returns:
            `torch.Tensor`: Prompts and completions of shape `(B, T + N)`, padded after each end.

        Raises:
            `ValueError`: if prompts differ in length, or the config has top-k, top-p or beams.
        """
        config = generation_config or self.model.generation_config
        sample = config.do_sample if do_sample is None else do_sample
        room = config.max_new_tokens if max_new_tokens is None else max_new_tokens
        temperature = config.temperature or 1.0
        # `or`: TRL writes "off" as 0 or None.
        if sample and (config.top_k or (config.top_p or 1.0) < 1.0 or (config.num_beams or 1) > 1):
            raise ValueError(
                f"FastSampler samples from the whole distribution, got top_k={config.top_k}, "
                f"top_p={config.top_p}, num_beams={config.num_beams}. Set top_k=0 and top_p=1."
            )
        if not attention_mask.all():
            raise ValueError("FastSampler needs prompts of one length; these are padded.")
        first, inverse = _first_of_equals(input_ids, inputs["pixel_values"])
        rows, length = input_ids.shape
        patches = inputs["pixel_values"].view(rows, -1, inputs["pixel_values"].shape[-1])
        prefill = self.model(
            input_ids=input_ids[first],
            attention_mask=attention_mask[first],
            pixel_values=patches[first].flatten(0, 1),
            image_grid_thw=inputs["image_grid_thw"][first],
            mm_token_type_ids=inputs["mm_token_type_ids"][first],
            use_cache=True,
            logits_to_keep=1,
        )
        offset = int(self.model.model.rope_deltas[0])
        decoder = _Decoder(self.model, prefill.past_key_values, inverse, length, room, offset)
        logits = prefill.logits[inverse, -1]  # (B, V)
        # As in `generate`, what the caller's config does not set comes from the model's.
        suppressed = config.suppress_tokens or self.model.generation_config.suppress_tokens or []
        completions = torch.full((rows, room), config.pad_token_id, dtype=torch.long)
        ends = torch.as_tensor(config.eos_token_id).flatten()
        alive = torch.arange(rows)
        ended = torch.zeros(rows, dtype=torch.bool)
        for step in range(room):
            logits[:, suppressed] = -torch.inf
            if sample:
                # The largest of p / Exp(1) is a draw from p; `multinomial` is slower.
                shares = (logits / temperature).softmax(-1)
                tokens = (shares / torch.empty_like(shares).exponential_()).argmax(-1)
            else:
                tokens = logits.argmax(-1)
            tokens = tokens.masked_fill(ended, config.pad_token_id)
            completions[alive, step] = tokens
            ended |= torch.isin(tokens, ends)
            if step + 1 == room or ended.all():
                return torch.cat([input_ids, completions[:, : step + 1]], dim=1)
            if step % _SHRINK_EVERY == 0 and ended.any():
                kept = (~ended).nonzero()[:, 0]
                decoder.keep(kept)
                alive, tokens, ended = alive[kept], tokens[kept], ended[kept]
            logits = decoder.step(tokens)
        raise AssertionError("max_new_tokens is at least 1")


class _Decoder:
    """The language model, one token at a time, with its weights laid out for this."""

    def __init__(
        self, model: Any, cache: Any, inverse: Tensor, length: int, room: int, offset: int
    ):
        text = model.model.language_model
        self.embedding, self.head, self.norm = (
            text.embed_tokens.weight,
            model.lm_head.weight,
            text.norm,
        )
        self.eps = text.config.rms_norm_eps
        self.layers, self.keys, self.values = [], [], []
        heads = width = 0
        for index, layer in enumerate(text.layers):
            attention, mlp = layer.self_attn, layer.mlp
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            self.layers.append(
                (
                    layer.input_layernorm.weight,
                    torch.cat([p.weight for p in projections]),
                    torch.cat([p.bias for p in projections]),
                    attention.o_proj.weight,
                    layer.post_attention_layernorm.weight,
                    torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
                    mlp.down_proj.weight,
                )
            )
            for store, prefilled in (
                (self.keys, cache.layers[index].keys),
                (self.values, cache.layers[index].values),
            ):
                _, heads, _, width = prefilled.shape
                filled = torch.empty(len(inverse), heads, length + room, width)  # (B, H, T, D)
                filled[:, :, :length] = prefilled[inverse]
                store.append(filled)
        self.kv_heads, self.head_dim = heads, width
        self.groups = text.config.num_attention_heads // heads
        self.at = length  # where the next token goes
        # A text token has the same position on all three axes, so the multimodal rotation
        # reduces to the plain one.
        positions = torch.arange(length + room)[:, None] + offset
        angles = positions * text.rotary_emb.inv_freq  # (T, D/2)
        self.cos = torch.cat([angles, angles], dim=-1).cos()
        self.sin = torch.cat([-angles, angles], dim=-1).sin()  # with the sign of rotate_half

    def keep(self, rows: Tensor) -> None:
        self.keys = [store[rows] for store in self.keys]
        self.values = [store[rows] for store in self.values]

    def step(self, tokens: Tensor) -> Tensor:
        """Logits of shape `(B, V)` after one more token of shape `(B,)`."""
        batch, width = len(tokens), (self.head_dim,)
        queries, seen = self.kv_heads * self.groups, self.at + 1
        cos, sin = self.cos[self.at], self.sin[self.at]
        x = self.embedding[tokens]  # (B, C)
        size = (x.shape[-1],)
        for (norm, qkv, bias, out, norm2, gate_up, down), keys, values in zip(
            self.layers, self.keys, self.values, strict=True
        ):
            h = F.linear(F.rms_norm(x, size, norm, self.eps), qkv, bias)
            h = h.view(batch, queries + 2 * self.kv_heads, *width)
            rotated = h[:, : queries + self.kv_heads]
            rotated = rotated * cos + rotated.roll(self.head_dim // 2, -1) * sin
            keys[:, :, self.at] = rotated[:, queries:]
            values[:, :, self.at] = h[:, queries + self.kv_heads :]
            query = rotated[:, :queries].reshape(batch, self.kv_heads, self.groups, *width)
            scores = query @ keys[:, :, :seen].transpose(-1, -2) * self.head_dim**-0.5
            mixed = scores.softmax(-1) @ values[:, :, :seen]  # (B, H, G, D)
            x = x + F.linear(mixed.reshape(batch, -1), out)
            gate, up = F.linear(F.rms_norm(x, size, norm2, self.eps), gate_up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, down)
        self.at += 1
        return F.linear(F.rms_norm(x, size, self.norm.weight, self.eps), self.head)


def share_images(model: Any) -> None:
    """
    Make a Qwen2.5-VL process identical images in a batch once, forward and backward.

    The rollouts of a prompt share their image. The features of each row are unchanged, and the
    gradient is the same sum.
    """
    visual: nn.Module = model.model.visual
    look = visual.forward

    def forward(pixel_values: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        images = len(grid_thw)
        same_size = bool((grid_thw == grid_thw[0]).all())
        patches = pixel_values.view(images, -1, pixel_values.shape[-1]) if same_size else None
        if patches is None:
            return look(pixel_values, grid_thw=grid_thw, **kwargs)
        first, inverse = _first_of_equals(patches)
        output = look(patches[first].flatten(0, 1), grid_thw=grid_thw[first], **kwargs)
        features = output.pooler_output.view(len(first), -1, output.pooler_output.shape[-1])
        output.pooler_output = features[inverse].flatten(0, 1)
        return output

    visual.forward = forward


def _first_of_equals(*columns: Tensor) -> tuple[Tensor, Tensor]:
    """First row of each kind, and the kind of each row: `column[first][inverse]` is `column`."""
    rows = len(columns[0])
    parts = [column.reshape(rows, -1).numpy() for column in columns]
    kinds: dict[tuple[bytes, ...], int] = {}
    first, inverse = [], []
    for row in range(rows):
        key = tuple(part[row].tobytes() for part in parts)
        if key not in kinds:
            kinds[key] = len(first)
            first.append(row)
        inverse.append(kinds[key])
    return torch.tensor(first), torch.tensor(inverse)
