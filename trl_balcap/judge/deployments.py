"""Deployments: where a judge runs, and how to reach it."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from trl_balcap.judge import rules
from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.litellm_module import litellm_module, register_scenes


@dataclass(frozen=True)
class Deployment:
    """One endpoint of a judge: a litellm model string and how to reach it.

    ```python
    >>> Deployment("openai/m", "http://judge:8000/v1?sig=secret")
    Deployment('openai/m at http://judge:8000/v1')

    ```
    """

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Deployment({self.where()!r})"

    def where(self) -> str:
        """The model and its endpoint, without anything that may be secret."""
        return f"{self.model} at {without_secrets(self.api_base)}" if self.api_base else self.model

    def base(self) -> str | None:
        """The base URL that litellm will use, including its own settings and the environment."""
        provider, resolved = _provider(self)
        usual = (f"{provider.upper()}_API_BASE", f"{provider.upper()}_BASE_URL")
        names = _BASE_VARIABLES.get(provider, usual)
        set_there = (os.environ.get(name) for name in names)
        given = (self.api_base, litellm_module().api_base, *set_there, resolved)
        return next((base for base in given if base), None)

    def check(self) -> None:
        """Check, offline, that litellm knows the model and has a key for it.

        Raises:
            `JudgeConfigError`: if not, with a fix.
        """
        provider = provider_of(self)
        if self.api_key is None and self.api_base is None:
            missing = litellm_module().validate_environment(self.model)
            # litellm reports no missing key for providers that it does not know.
            if not missing["keys_in_environment"] and missing["missing_keys"]:
                raise JudgeConfigError(
                    f"the judge {self.model!r} needs a key: set "
                    f"{' or '.join(missing['missing_keys'])} in the environment, or give "
                    f"Judge(api_key=...) (provider: {provider})"
                )

    def headers(self) -> dict[str, str]:
        """Custom headers sent with each question."""
        return {**self.extra.get("headers", {}), **self.extra.get("extra_headers", {})}

    def secrets(self) -> list[str]:
        """What messages must not show: keys, headers, and the query of the base URL."""
        return [secret for secret in self._secrets() if isinstance(secret, str)]

    def _secrets(self) -> Iterator[Any]:
        yield self.api_key
        yield from _secrets_in(self.extra)
        for value in self.headers().values():
            yield value
            yield str(value).rpartition(" ")[2]  # of "Bearer sk-..."
        if self.api_base:
            query = urlsplit(self.api_base).query
            yield query
            yield from (value for _, value in parse_qsl(query))


# Where litellm reads others than these two by the provider's name. Those of many providers are read
# as it resolves the provider.
_BASE_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "ollama_chat": ("OLLAMA_API_BASE",),
    "vertex_ai": ("VERTEXAI_API_BASE", "VERTEX_API_BASE"),
    "vertex_ai_beta": ("VERTEXAI_API_BASE", "VERTEX_API_BASE"),
    "bedrock": ("AWS_BEDROCK_RUNTIME_ENDPOINT",),
    "huggingface": ("HF_API_BASE", "HUGGINGFACE_API_BASE"),
    "watsonx": ("WATSONX_API_BASE", "WATSONX_URL", "WX_URL", "WML_URL"),
    "cohere_chat": ("COHERE_API_BASE",),
    "datarobot": ("DATAROBOT_ENDPOINT",),
}


def is_secret(name: str) -> bool:
    """Whether a parameter or header with this name is a secret.

    ```python
    >>> [name for name in ("Authorization", "X-Api-Key", "X-Tenant") if not is_secret(name)]
    ['X-Tenant']

    ```
    """
    parts = ("key", "token", "secret", "auth", "cookie", "password", "credential", "signature")
    return any(part in name.lower() for part in parts)


def _secrets_in(parameters: Any, *, inside: bool = False) -> Iterator[Any]:
    """Values under names of secrets, however deep."""
    if isinstance(parameters, Mapping):
        for name, value in parameters.items():
            yield from _secrets_in(value, inside=inside or is_secret(str(name)))
    elif isinstance(parameters, list | tuple):
        for value in parameters:
            yield from _secrets_in(value, inside=inside)
    elif inside:
        yield parameters


def without_secrets(base: str) -> str:
    """A base URL without its user, password and query, as far as it is one.

    ```python
    >>> without_secrets("http://me:secret@judge:8000/v1?sig=secret"), without_secrets("judge:8000")
    ('http://judge:8000/v1', 'judge:8000')

    ```
    """
    return re.sub(r"^(\w+://)?[^/]*@", r"\1", re.split(r"[?#]", base)[0])


def deployments(
    model: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    *,
    api_base: str | None = None,
    api_key: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[Deployment, ...]:
    """Parse a model setting into deployments.

    Args:
        model (`str`, `dict`, or a list of them):
            A litellm model string; a dict with `model` and other litellm parameters (`api_base`,
            `api_key`, …); an entry of a litellm Router's `model_list`; or a list of these, for
            several deployments of one judge.

    Example:

    ```python
    >>> [d.where() for d in deployments(["openai/a", {"model": "openai/a", "api_base": "http://b"}])]
    ['openai/a', 'openai/a at http://b']

    ```
    """
    given = [model] if isinstance(model, str | Mapping) else list(model)
    if not given:
        raise JudgeConfigError("Judge(model=[]) is empty: give at least one deployment")
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
        base = parameters.pop("api_base", parameters.pop("base_url", api_base))
        key = parameters.pop("api_key", api_key)
        # An empty one is mostly a shell variable that is not set, and would mean OpenAI's server.
        if base is not None and not rules.URL.holds(base):
            shown = without_secrets(base) if isinstance(base, str) else base
            raise JudgeConfigError(
                f"the api_base of {name!r} is {shown!r}, and must be {rules.URL.says}. Or leave it "
                "out"
            )
        if key is not None and not rules.TEXT.holds(key):
            raise JudgeConfigError(
                f"the api_key of {name!r} must be {rules.TEXT.says}. Or leave it out"
            )
        if base and "@" in urlsplit(base).netloc:
            raise JudgeConfigError(
                f"the api_base of {name!r} contains a user or password, which HTTP clients reject "
                "next to a key. Use Judge(extra={'extra_headers': {'Authorization': ...}})"
            )
        found.append(
            Deployment(
                name,
                base,
                key,
                {**(extra or {}), **parameters},
            )
        )
    return tuple(found)


def provider_of(deployment: Deployment) -> str:
    """litellm's provider for the deployment's model.

    Raises:
        `JudgeConfigError`: if litellm does not know the model.
    """
    return _provider(deployment)[0]


def _provider(deployment: Deployment) -> tuple[str, str | None]:
    """The provider, and the base URL that litellm has for it by default or by the environment."""
    litellm = litellm_module()
    if deployment.model.startswith("scenes/"):
        register_scenes()
    try:
        found = litellm.get_llm_provider(deployment.model, api_base=deployment.api_base)
    except litellm.exceptions.BadRequestError as error:
        raise JudgeConfigError(
            f"litellm does not know the provider of the judge model {deployment.model!r}. Write "
            "'provider/model', such as 'openai/gpt-4o-mini', "
            "'hosted_vllm/Qwen/Qwen2.5-VL-7B-Instruct' (with api_base) or 'scenes/oracle'"
        ) from error
    return found[1], found[3]


def supports_schema(deployment: Deployment) -> bool:
    """Whether litellm's table says that the provider can constrain replies to a JSON schema."""
    return litellm_module().supports_response_schema(deployment.model, provider_of(deployment))
