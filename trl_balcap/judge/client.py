"""The one place that calls litellm: one attempt at one question.

No retry happens here or below (`max_retries=0`): they have one owner, `dispatch`.
"""

import asyncio
import os
from functools import cache
from typing import Any, NamedTuple

from trl_balcap.judge.background import call_at_close, in_place
from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.failures import Failure, failure_of
from trl_balcap.judge.litellm_module import litellm_module, unobserved


class Reply(NamedTuple):
    """A judge's reply with what it took, and what is wrong with it, if something is."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    failure: Failure | None = None


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

    litellm = litellm_module()
    options = dict(deployment.extra)
    if response_format is not None:
        options["response_format"] = response_format
    if top_p is not None:
        options["top_p"] = top_p
    token = in_place.set(deployment.model.partition("/")[0] in _PREPARED_IN_PLACE)
    try:
        # litellm's own timeout starts anew with each byte; this one bounds the whole answer.
        with unobserved(deployment.model, messages) as spared:
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
        raise failure_of(error) from error
    finally:
        in_place.reset(token)
        _close_connections_at_exit()
    return _reply(response)


# Providers whose requests litellm prepares without a look at disk or network. Others may fetch a
# token there, or even wait for the reply.
_PREPARED_IN_PLACE = {"openai", "hosted_vllm"}


@cache
def _close_connections_at_exit() -> None:
    # Called after the first request, because litellm registers a handler of its own with it.
    call_at_close(litellm_module().close_litellm_async_clients)


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
