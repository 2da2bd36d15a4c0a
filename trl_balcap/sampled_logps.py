"""Notes the log-probabilities of tokens while transformers samples them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SampledLogps"]


class SampledLogps:
    """
    The log-probability of each sampled token, $\\log \\pi(o_t \\mid q, o_{<t})$, without another
    forward pass.

    `generate` calls the model once per token and gives it the token it sampled last. So the logits
    of one call and the input of the next are all that is needed. In float32 the values equal those
    of a forward pass up to rounding; in bfloat16 they differ as those of two batch sizes do.

    Args:
        temperature (`float`, *optional*, defaults to `1.0`): The temperature of sampling.

    Example: a model of two tokens, with logits 0 and log 3 whatever it reads.

    ```python
    >>> from types import SimpleNamespace
    >>> class Model(nn.Module):
    ...     def forward(self, input_ids):
    ...         return SimpleNamespace(logits=torch.tensor([0.0, 3.0]).add(1).log().expand(1, 1, 2))
    >>> model, noted = Model(), SampledLogps()
    >>> with noted.watching(model):  # reads a prompt, samples token 1, then token 0
    ...     _ = model(input_ids=torch.tensor([[7, 7, 7]])), model(input_ids=torch.tensor([[1]]))
    >>> noted.of(torch.tensor([[1, 0]]), torch.tensor([[1, 1]])).exp()
    tensor([[0.8000, 0.2000]])

    ```
    """

    def __init__(self, temperature: float = 1.0):
        self.temperature = temperature
        self._logits: Tensor | None = None  # (B, V), of the token to be sampled next
        self._tokens: list[Tensor] = []  # each (B, 1)
        self._logps: list[Tensor] = []  # each (B, 1)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Note what `model.generate` samples inside this block."""
        handle = model.register_forward_hook(self._note, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if self._logits is not None:
            self._sampled(kwargs["input_ids"][:, -1:])
        self._logits = output.logits[:, -1].float() / self.temperature  # (B, V)

    def _sampled(self, tokens: Tensor) -> None:
        logits = self._logits
        assert logits is not None
        self._tokens.append(tokens)
        self._logps.append(logits.gather(1, tokens) - logits.logsumexp(1, keepdim=True))

    def of(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        """
        The log-probabilities of completions.

        Args:
            tokens (`torch.Tensor`): Completions of shape `(B, T)`.
            mask (`torch.Tensor`): 1 for their tokens and 0 for padding, of shape `(B, T)`.

        Returns:
            `torch.Tensor`: Shape `(B, T)`, 0 for padding. `None` if these are not the tokens that
            were sampled, as with another engine, or several turns.
        """
        if self._logits is None or len(self._logits) != len(tokens):
            return None
        logps = torch.zeros(tokens.shape, device=tokens.device)
        length = int(mask.any(dim=0).sum())
        if not length:  # all were truncated, and mask_truncated_completions masks those
            return logps
        if len(self._logps) == length - 1:  # the last token was sampled, but not read
            self._sampled(tokens[:, length - 1 : length])
        if len(self._logps) < length:
            return None
        kept = mask.bool()
        sampled = torch.cat(self._tokens[:length], dim=1)  # (B, T')
        if not (sampled == tokens[:, :length])[kept[:, :length]].all():
            return None
        logps[:, :length] = torch.cat(self._logps[:length], dim=1)
        return logps * kept
