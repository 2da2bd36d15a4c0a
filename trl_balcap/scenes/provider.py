"""The exact judge as a litellm provider: the model string `scenes/oracle` works like any other.

Nothing in between is mocked: litellm does the routing, and the provider gets the same messages as a
hosted model.
"""

import os
import re
import threading
from typing import Any

# Without this, litellm fetches its price table from the network on import.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm
from litellm import CustomLLM, ModelResponse
from litellm.types.utils import Usage
from litellm.utils import custom_llm_setup

from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Oracle, QuestionError

__all__ = ["ScenesProvider", "register"]

_PROVIDER = "scenes"
_NOISY = re.compile(
    r"oracle\+linguistic=(?P<linguistic>[\d.]+),flip=(?P<flip>[\d.]+)(?:,seed=(?P<seed>\d+))?"
)
_CHARACTERS_PER_TOKEN = 4  # an estimate; there is no tokenizer
_TOKENS_PER_IMAGE = 9  # one per cell
_registering = threading.Lock()


class ScenesProvider(CustomLLM):
    r"""
    Models of the provider `scenes`:

    - `scenes/oracle`, the exact judge;
    - `scenes/oracle+linguistic=0.5,flip=0.1` (optionally with `,seed=3`), a noisy judge that draws
      new errors on every call; see [`Noise`].

    Raises:
        `litellm.NotFoundError`: for any other model name.
        `litellm.BadRequestError`: for messages without a question that the judge knows.
    """

    def __init__(self):
        super().__init__()
        self.oracles = {"oracle": Oracle()}

    def completion(
        self, model: str, messages: list, *args: Any, model_response: ModelResponse, **kwargs: Any
    ) -> ModelResponse:
        oracle = self.oracles.get(model) or self._noisy(model)
        try:
            content = oracle(messages)
        except QuestionError as error:
            raise litellm.BadRequestError(str(error), model, _PROVIDER) from error
        choice = model_response.choices[0]
        choice.message.content = content  # type: ignore[union-attr]
        choice.finish_reason = "stop"
        model_response.model = model
        prompt, completion = _tokens(messages), len(content) // _CHARACTERS_PER_TOKEN + 1
        usage = Usage(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )
        setattr(model_response, "usage", usage)  # noqa: B010 -- a field that pydantic adds late
        return model_response

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:  # type: ignore[override]
        return self.completion(*args, **kwargs)

    def _noisy(self, model: str) -> Oracle:
        found = _NOISY.fullmatch(model)
        if found is None:
            raise litellm.NotFoundError(
                f"the provider scenes has no model {model!r}: use scenes/oracle, or "
                "scenes/oracle+linguistic=0.5,flip=0.1 for a noisy judge.",
                model,
                _PROVIDER,
            )
        noise = Noise(
            linguistic=float(found["linguistic"]),
            flip=float(found["flip"]),
            seed=int(found["seed"] or 0),
            every_call=True,
        )
        return self.oracles.setdefault(model, Oracle(noise))


def _tokens(messages: list[dict[str, Any]]) -> int:
    characters = images = 0
    for message in messages:
        content = message.get("content") or ""
        for part in [{"text": content}] if isinstance(content, str) else content:
            characters += len(part.get("text", ""))
            images += part.get("type") == "image_url"
    return characters // _CHARACTERS_PER_TOKEN + images * _TOKENS_PER_IMAGE


def register() -> None:
    r"""
    Register the provider `scenes` with litellm. Calling it again has no effect.

    Example:

    ```python
    >>> from trl_balcap.scenes.provider import register

    >>> register()
    >>> import litellm
    >>> message = {"role": "user", "content": '{"question": "preflight"}'}
    >>> reply = litellm.completion("scenes/oracle", [message])
    >>> reply.choices[0].message.content
    '{"ready": true}'

    ```
    """
    with _registering:
        if all(item["provider"] != _PROVIDER for item in litellm.custom_provider_map):
            litellm.custom_provider_map = [
                *litellm.custom_provider_map,
                {"provider": _PROVIDER, "custom_handler": ScenesProvider()},
            ]
            custom_llm_setup()
