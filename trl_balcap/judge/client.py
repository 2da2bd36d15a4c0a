"""The one place that calls litellm: one attempt at one question, and what its failure means.

No retry happens here or below (`max_retries=0`): they have one owner, `engine`.
"""

import asyncio
import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from trl_balcap.judge.background import call_at_close, in_place
from trl_balcap.judge.errors import JudgeConfigError, JudgeError, Reason, shorten


class Reply(NamedTuple):
    """A judge's reply with what it took, and what is wrong with it, if something is."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    failure: "Failure | None" = None


class Failure(Exception):
    """One failed attempt: why, and what may be done about it.

    `again` is whether the same question may be asked again, `retry_after` how many seconds the
    judge asked to be left alone, `fatal` whether no other question can fare better.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        again: bool,
        retry_after: float | None = None,
        fatal: bool = False,
        reply: str | None = None,
    ):
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.again = again
        self.retry_after = retry_after
        self.fatal = fatal
        self.reply = reply

    def as_error(self, deployment: "Deployment") -> JudgeError:
        reply = None if self.reply is None else scrub(self.reply, deployment)
        return JudgeError(self.reason, scrub(self.message, deployment), reply)


@dataclass(frozen=True)
class Deployment:
    """One place where a judge answers: a litellm model string and how to reach it."""

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
            missing = _litellm().validate_environment(self.model)
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


async def ask_once(
    deployment: Deployment,
    messages: list[dict[str, Any]],
    *,
    timeout: float,
    temperature: float | None,
    max_tokens: int | None,
    response_format: dict[str, Any] | None = None,
    top_p: float | None = None,
) -> Reply:
    """Send the messages once and return the reply, which may be cut off, refused or empty.

    Raises:
        `Failure`: if there is no reply.
    """
    import openai  # litellm's dependency, and as slow to import

    litellm = _litellm()
    options = dict(deployment.extra)
    if response_format is not None:
        options["response_format"] = response_format
    if top_p is not None:
        options["top_p"] = top_p
    token = in_place.set(deployment.model.partition("/")[0] in _PREPARED_IN_PLACE)
    try:
        # litellm's own timeout starts anew with each byte; this one bounds the whole answer.
        with _unobserved(deployment.model, messages) as spared:
            async with asyncio.timeout(timeout):
                response = await litellm.acompletion(
                    model=deployment.model,
                    messages=messages,
                    api_base=deployment.api_base,
                    api_key=_key(deployment),
                    temperature=temperature,
                    max_tokens=max_tokens,
                    timeout=timeout,
                    num_retries=0,
                    max_retries=0,
                    drop_params=True,  # a reasoning model has no temperature, some have no schema
                    **spared,
                    **options,
                )
    except TimeoutError as error:
        raise Failure("timeout", f"no answer within {timeout:g} s", again=True) from error
    except openai.OpenAIError as error:  # the base of all that litellm raises
        raise _failure(error) from error
    finally:
        in_place.reset(token)
        _close_connections_at_exit()
    return _reply(response)


def provider_of(deployment: Deployment) -> str:
    """litellm's provider for the deployment's model.

    Raises:
        `JudgeConfigError`: if litellm does not know the model.
    """
    litellm = _litellm()
    if deployment.model.startswith("scenes/"):
        _register_scenes()
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
    return _litellm().supports_response_schema(deployment.model, provider_of(deployment))


@cache
def _litellm() -> ModuleType:
    """litellm, imported at the first question: it takes seconds."""
    for name, value in LITELLM_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import litellm

    # litellm prints help for each error to stdout, and has no per-call switch for it.
    litellm.suppress_debug_info = True
    return litellm


@cache
def _close_connections_at_exit() -> None:
    # Called after the first request, because litellm registers a handler of its own with it.
    call_at_close(_litellm().close_litellm_async_clients)


# Providers whose requests litellm prepares without a look at disk or network. Others may fetch a
# token there, or even wait for the reply.
_PREPARED_IN_PLACE = {"openai", "hosted_vllm"}

LITELLM_ENVIRONMENT = {
    # Else the import fetches a price table from the network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # For the openai provider, litellm's own HTTP handler in place of the openai package: a third
    # less CPU a call (benchmarks/judge.py). Set it to "False" to go back.
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",
}
"""What the environment is given, where it does not say otherwise, before litellm is imported."""


@contextlib.contextmanager
def _unobserved(model: str, messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Spare litellm, per call, what nobody receives: log records, and a price looked up anew.

    Both together are half of its CPU. Yields what `acompletion` is given besides; nothing is spared
    where litellm has a callback to serve, or is a release without these seams.
    """
    litellm, internal_call, record = _litellm(), _internal_call(), _unpriced_record()
    receivers = (
        litellm.callbacks,
        litellm.success_callback,
        litellm.failure_callback,
        litellm._async_success_callback,
        litellm._async_failure_callback,
    )
    if internal_call is None or record is None or any(receivers):
        yield {}
        return
    token = internal_call.set(True)
    try:
        yield {"litellm_logging_obj": record(model, messages)}
    finally:
        internal_call.reset(token)


@cache
def _internal_call() -> ContextVar[bool] | None:
    """litellm's mark for calls that it makes itself; not public, so it may be gone one day."""
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:
        return None
    return is_internal_call


@cache
def _unpriced_record() -> Callable[[str, list[dict[str, Any]]], Any] | None:
    """Makes litellm's record of a call, without the search for its price: `prices` does that once."""
    try:
        from litellm.litellm_core_utils.litellm_logging import Logging
    except ImportError:
        return None

    class Unpriced(Logging):
        def response_cost_calculator(self, *args: Any, **kwargs: Any) -> None:
            return None

    def record(model: str, messages: list[dict[str, Any]]) -> Logging:
        return Unpriced(
            model=model,
            messages=messages,
            stream=False,
            call_type="acompletion",
            start_time=datetime.now(),
            litellm_call_id=str(uuid.uuid4()),
            function_id="",
        )

    return record


@cache
def _register_scenes() -> None:
    from trl_balcap.scenes import provider

    provider.register()


def _key(deployment: Deployment) -> str | None:
    if deployment.api_key is None and deployment.api_base and "OPENAI_API_KEY" not in os.environ:
        return "none"  # a server of one's own asks for none, but the client insists on some
    return deployment.api_key


def _reply(response: Any) -> Reply:
    choice = response.choices[0] if response.choices else None
    text = (choice.message.content if choice else None) or ""
    failure = None
    refusal = choice and choice.message.get("refusal")
    # The finish reason comes before the text: half a JSON object may parse by chance.
    if choice is not None and choice.finish_reason == "length":
        failure = Failure("truncated", "the reply was cut off", again=False, reply=text)
    elif refusal or (choice is not None and choice.finish_reason == "content_filter"):
        failure = Failure("refused", "the judge refused to answer", again=False, reply=refusal)
    elif not text:
        failure = Failure("unreadable", "the reply is empty", again=False, reply=text)
    usage = getattr(response, "usage", None)
    return Reply(
        text,
        getattr(usage, "prompt_tokens", None) or 0,
        getattr(usage, "completion_tokens", None) or 0,
        failure,
    )


def _failure(error: Exception) -> Failure:
    """What an exception of litellm means. The order matters: they inherit from each other."""
    known = _litellm().exceptions
    message = str(error)
    if isinstance(error, known.Timeout):
        return Failure("timeout", message, again=True)
    if isinstance(error, known.RateLimitError):
        wait = retry_after(error)
        return Failure("rate_limited", message, again=True, retry_after=wait)
    fatal = (
        known.AuthenticationError,
        known.PermissionDeniedError,
        known.NotFoundError,
        known.PaymentRequiredError,
        known.UnsupportedParamsError,
    )
    if isinstance(error, fatal):
        return Failure("refused", message, again=False, fatal=True, reply=message)
    if isinstance(error, known.BadRequestError | known.UnprocessableEntityError):
        # Too long, against a content policy, or malformed: asking again cannot help.
        return Failure("refused", message, again=False, reply=message)
    wait = retry_after(error)
    return Failure("server_error", message, again=True, retry_after=wait, reply=message)


def retry_after(error: Exception) -> float | None:
    """Seconds that the judge asked to be left alone (`Retry-After`, in seconds)."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        value = headers.get("retry-after") if headers else None
        if value is not None:
            with contextlib.suppress(ValueError):
                return max(0.0, float(value))  # the date form is rare; backoff covers it
    return None


def scrub(message: str, *deployments: Deployment) -> str:
    """`message` in short, without keys and image bytes, whoever put them there.

    ```python
    >>> scrub("Bad key sk-0123456789.", Deployment("openai/m", api_key="sk-0123456789"))
    'Bad key [key].'

    ```
    """
    named = (v for k, v in os.environ.items() if k.endswith(("_API_KEY", "_TOKEN", "_SECRET")))
    for secret in (*(s for d in deployments for s in d.secrets()), *named):
        if len(secret) > 5:  # shorter ones are placeholders, and parts of ordinary words
            message = message.replace(secret, "[key]")
    return shorten(_IMAGE_DATA.sub(";base64,[image]", message))


_IMAGE_DATA = re.compile(r";base64,[A-Za-z0-9+/=]*")
