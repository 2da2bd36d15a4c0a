"""The one place that calls litellm: one attempt at one question.

Nothing is retried here or below (`max_retries=0`): all retries belong to `dispatch`.
"""

import asyncio
import os
from functools import cache
from typing import Any, NamedTuple

from trl_balcap.judge.background import call_at_close, in_place
from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.failures import Failure, failure_of, redirected
from trl_balcap.judge.litellm_module import litellm_module, unobserved
from trl_balcap.judge.questions import encodable
from trl_balcap.judge.wire import careful_requests


class ReplyText(NamedTuple):
    """One text of a judge's reply, and what is wrong with it, if anything."""

    text: str
    failure: Failure | None = None


class Usage(NamedTuple):
    """Tokens as the judge counts them. `cached` prompt tokens came from its prefix cache."""

    prompt: int
    completion: int
    cached: int = 0


class Reply(NamedTuple):
    """A judge's reply: its choices (one, or as many as requested) and what it used."""

    choices: tuple[ReplyText, ...]
    usage: Usage | None


async def ask_once(
    deployment: Deployment,
    messages: list[dict[str, Any]],
    *,
    timeout: float,
    temperature: float | None,
    max_tokens: int | None,
    response_format: dict[str, Any] | None = None,
    top_p: float | None = None,
    n: int = 1,
) -> Reply:
    """Send the messages once and return the reply, whose choices may be cut off, refused or empty.

    Raises:
        `Failure`: if there is no reply.
        `JudgeConfigError`: if the provider needs a package that is not installed.
    """
    litellm = litellm_module()
    import openai  # litellm's dependency, and as slow to import

    options = dict(deployment.extra)
    if response_format is not None:
        options["response_format"] = response_format
    if top_p is not None:
        options["top_p"] = top_p
    if n > 1:
        options["n"] = n
    redirects: list[str] = []
    token = in_place.set(deployment.model.partition("/")[0] in _PREPARED_IN_PLACE)
    # Raised outside the handlers: litellm's exceptions contain the request, and tracebacks are not
    # scrubbed of secrets.
    try:
        # litellm's own timeout restarts with each byte; this one bounds the whole answer.
        with unobserved(deployment.model, messages) as spared, careful_requests() as redirects:
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
                    drop_params=True,  # reasoning models take no temperature, some models no schema
                    **spared,
                    **options,
                )
        problem: Failure | JudgeConfigError | None = None
    except TimeoutError:
        response, problem = None, Failure("timeout", f"no answer within {timeout:g} s", again=True)
    except ImportError as error:
        missing = f"{deployment.model!r} needs a package that is not installed: {error}"
        response, problem = None, JudgeConfigError(missing)
    except openai.OpenAIError as error:  # base class of litellm's errors
        response, problem = None, failure_of(error)
    finally:
        in_place.reset(token)
        _close_connections_at_exit()
    if redirects:
        raise redirected(redirects[0])
    if problem is not None:
        raise problem
    return _reply(response)


# Providers whose requests litellm prepares without disk or network access. Others may fetch a
# token, or even wait for the reply.
_PREPARED_IN_PLACE = {"openai", "hosted_vllm"}


@cache
def _close_connections_at_exit() -> None:
    # Called after the first request, because that is when litellm registers its own handler.
    call_at_close(litellm_module().close_litellm_async_clients)


def _key(deployment: Deployment) -> str | None:
    if deployment.api_key is None and deployment.api_base and "OPENAI_API_KEY" not in os.environ:
        return "none"  # self-hosted servers need no key, but the client insists on one
    return deployment.api_key


def _reply(response: Any) -> Reply:
    choices = tuple(_choice(choice) for choice in response.choices)
    usage = getattr(response, "usage", None)
    prompt = _count(usage, "prompt_tokens")
    completion = _count(usage, "completion_tokens")
    cached = _count(getattr(usage, "prompt_tokens_details", None), "cached_tokens")
    empty = ReplyText("", Failure("unreadable", "the reply is empty", again=False, reply=""))
    counted = Usage(prompt, completion, min(cached, prompt)) if prompt else None
    return Reply(choices or (empty,), counted)


def _count(usage: Any, name: str) -> int:
    return max(0, getattr(usage, name, None) or 0)  # below 0, it would give dollars back


def _choice(choice: Any) -> ReplyText:
    text = encodable(choice.message.content or "")
    refusal = choice.message.get("refusal")
    failure = None
    # Check the finish reason before the text: half a JSON object may parse by chance.
    if choice.finish_reason == "length":
        failure = Failure("truncated", "the reply was cut off", again=False, reply=text)
    elif refusal or choice.finish_reason == "content_filter":
        failure = Failure("refused", "the judge refused to answer", again=False, reply=refusal)
    elif not text:
        failure = Failure("unreadable", "the reply is empty", again=False, reply=text)
    return ReplyText(text, failure)
