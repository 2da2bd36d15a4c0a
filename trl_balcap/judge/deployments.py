"""Deployments: where a judge answers, and how it is reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.litellm_module import litellm_module, register_scenes


@dataclass(frozen=True)
class Deployment:
    """One endpoint of a judge: a litellm model string and how to reach it."""

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def where(self) -> str:
        return f"{self.model} at {self.api_base}" if self.api_base else self.model

    def check(self) -> None:
        """Whether litellm knows the model and has a key for it; asks nothing of the network.

        Raises:
            `JudgeConfigError`: if not, naming the way out.
        """
        provider = provider_of(self)
        if self.api_key is None and self.api_base is None:
            missing = litellm_module().validate_environment(self.model)
            # For providers that it does not know, litellm reports no missing key.
            if not missing["keys_in_environment"] and missing["missing_keys"]:
                raise JudgeConfigError(
                    f"the judge {self.model!r} needs a key: set {' or '.join(missing['missing_keys'])}"
                    f" in the environment, or give Judge(api_key=...) (provider: {provider})"
                )

    def secrets(self) -> list[str]:
        """The keys that this deployment was given."""
        given = [self.api_key, *(v for k, v in self.extra.items() if "key" in k or "token" in k)]
        return [secret for secret in given if isinstance(secret, str)]


def deployments(
    model: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    *,
    api_base: str | None = None,
    api_key: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[Deployment, ...]:
    """The deployments that a model setting names.

    Args:
        model (`str`, `dict`, or a list of them):
            A litellm model string; a dict with `model` and other litellm parameters (`api_base`,
            `api_key`, …); an entry of a litellm Router's `model_list`; or several of these, which
            are then deployments of one judge.

    Example:

    ```python
    >>> [d.where() for d in deployments(["openai/a", {"model": "openai/a", "api_base": "http://b"}])]
    ['openai/a', 'openai/a at http://b']

    ```
    """
    given = [model] if isinstance(model, str | Mapping) else list(model)
    if not given:
        raise JudgeConfigError("Judge(model=[]) names no model: give at least one deployment")
    found = []
    for one in given:
        entry: Mapping[str, Any] = {"model": one} if isinstance(one, str) else one
        parameters: dict[str, Any] = dict(entry.get("litellm_params", entry))
        name = parameters.pop("model", None)
        if not isinstance(name, str) or not name:
            raise JudgeConfigError(
                f"a deployment needs a 'model', a litellm model string such as "
                f"'openai/gpt-4o-mini'; got keys {sorted(entry)}"
            )
        found.append(
            Deployment(
                name,
                parameters.pop("api_base", api_base),
                parameters.pop("api_key", api_key),
                {**(extra or {}), **parameters},
            )
        )
    return tuple(found)


def provider_of(deployment: Deployment) -> str:
    """litellm's provider for the deployment's model.

    Raises:
        `JudgeConfigError`: if litellm does not know the model.
    """
    litellm = litellm_module()
    if deployment.model.startswith("scenes/"):
        register_scenes()
    try:
        return litellm.get_llm_provider(deployment.model, api_base=deployment.api_base)[1]
    except litellm.exceptions.BadRequestError as error:
        raise JudgeConfigError(
            f"litellm knows no provider for the judge model {deployment.model!r}. Write "
            "'provider/model', such as 'openai/gpt-4o-mini', 'hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct'"
            " (with api_base) or 'scenes/oracle'"
        ) from error


def supports_schema(deployment: Deployment) -> bool:
    """Whether litellm's table says that the provider holds replies to a JSON schema."""
    return litellm_module().supports_response_schema(deployment.model, provider_of(deployment))
