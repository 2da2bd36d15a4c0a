"""What a model's tokens cost, by litellm's own table; the network is not asked."""

from trl_balcap.judge.deployments import Deployment, provider_of
from trl_balcap.judge.litellm_module import litellm_module


def price_of(deployment: Deployment) -> tuple[float, float] | None:
    """
    Dollars per million prompt tokens and per million completion tokens, `None` where litellm's
    table has no price.

    The exact judge of scenes costs nothing. An OpenAI-like endpoint of one's own (`api_base`) has no known price, whatever its model is
    called.

    Example:

    ```python
    >>> price_of(Deployment("openai/gpt-4o-2024-08-06"))
    (2.5, 10.0)
    >>> price_of(Deployment("scenes/oracle"))
    (0.0, 0.0)

    ```
    """
    if provider_of(deployment) == "scenes":
        return 0.0, 0.0
    if deployment.api_base is not None and provider_of(deployment) == "openai":
        return None
    table = litellm_module().model_cost
    entry = table.get(deployment.model) or table.get(deployment.model.partition("/")[2])
    if not entry or entry.get("input_cost_per_token") is None:
        return None
    return (
        entry["input_cost_per_token"] * 1e6,
        (entry.get("output_cost_per_token") or 0.0) * 1e6,
    )
