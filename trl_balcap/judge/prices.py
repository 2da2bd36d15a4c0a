"""Token prices of models, from litellm's bundled table, without network access."""

from typing import NamedTuple

from trl_balcap.judge.client import Usage
from trl_balcap.judge.deployments import Deployment, provider_of
from trl_balcap.judge.litellm_module import litellm_module


class TokenPrice(NamedTuple):
    """Dollars per million tokens of the prompt, of the completion, and of the cached prompt."""

    prompt: float
    completion: float
    cached: float

    def usd(self, usage: Usage) -> float:
        """Cost of a reply in dollars.

        ```python
        >>> TokenPrice(2.5, 10.0, 1.25).usd(Usage(prompt=1_000_000, completion=0, cached=400_000))
        2.0

        ```
        """
        fresh = usage.prompt - usage.cached
        dollars = fresh * self.prompt + usage.cached * self.cached
        return (dollars + usage.completion * self.completion) / 1e6


def given_price(price: tuple[float, ...]) -> TokenPrice:
    """The price given by a setting: two numbers, and a third if cached tokens are cheaper.

    ```python
    >>> given_price((2.0, 8.0))
    TokenPrice(prompt=2.0, completion=8.0, cached=2.0)

    ```
    """
    prompt, completion, *cached = price
    return TokenPrice(prompt, completion, *cached or (prompt,))


def price_of(deployment: Deployment) -> TokenPrice | None:
    """
    Dollars per million prompt, completion and cached tokens, `None` if litellm's table has no
    price.

    The exact judge of scenes is free. Your own endpoint has no known price, whatever its model is
    called.

    Example:

    ```python
    >>> price_of(Deployment("openai/gpt-4o-2024-08-06"))
    TokenPrice(prompt=2.5, completion=10.0, cached=1.25)
    >>> price_of(Deployment("scenes/oracle")).prompt
    0.0
    >>> price_of(Deployment("hosted_vllm/gpt-4o", "http://localhost:8000/v1")) is None
    True

    ```
    """
    provider, base = provider_of(deployment), deployment.base()
    if provider == "scenes":
        return TokenPrice(0.0, 0.0, 0.0)
    if provider == "openai" and base and "//api.openai.com" not in base:
        return None
    table = litellm_module().model_cost
    entry = table.get(deployment.model)
    if not entry:
        # Under its bare name, the table has the price of the model's maker.
        entry = table.get(deployment.model.partition("/")[2]) or {}
        if entry.get("litellm_provider") != provider:
            return None
    prompt = entry.get("input_cost_per_token")
    if prompt is None:
        return None
    cached = entry.get("cache_read_input_token_cost")
    return TokenPrice(
        prompt * 1e6,
        (entry.get("output_cost_per_token") or 0.0) * 1e6,
        (prompt if cached is None else cached) * 1e6,
    )
