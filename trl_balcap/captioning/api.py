"""Captions from an OpenAI-compatible server, or any provider that litellm supports."""

import asyncio
from collections.abc import Sequence

from PIL import Image

from trl_balcap.captioning.engine import Captioner, Generation, user_turn
from trl_balcap.judge import Judge, JudgeConfigError, JudgeError
from trl_balcap.judge.deployments import Deployment

__all__ = ["api_captioner", "check_server"]

_PREFLIGHT_TOKENS = 64
# The server is up and the key is valid; its caption of a white square does not matter.
_WORKS = ("unreadable", "rate_limited")


def api_captioner(
    model: str, how: Generation, api_base: str | None = None, client: Judge | None = None
) -> Captioner:
    """
    A captioner that asks a server, `how.batch_size` requests at a time. It asks one cheap question
    first, so that a wrong address or missing key is reported once rather than for every image.

    Args:
        model (`str`): A litellm model string.
        how ([`Generation`]): Prompt, bounds and temperature.
        api_base (`str`, *optional*): URL of the server.
        client ([`~judge.Judge`], *optional*): Sends the requests, for one who reads its statistics.

    Raises:
        [`~judge.JudgeConfigError`]: if the server does not answer, or there is no key for it.
        `ValueError`: if a seed is given, which not every server takes.
    """
    if how.seed is not None:
        raise ValueError(
            f"The seed {how.seed} is for an engine on this machine: not every server takes one. "
            "Leave it out, or start the server with a seed."
        )
    # Not a judge, but the same engine: retries, limits, one place that calls litellm.
    asked = client or Judge(model, api_base=api_base, max_concurrency=how.batch_size)
    asyncio.run(check_server(asked.settings.text[0], how.prompt))

    async def caption(images: Sequence[Image.Image]) -> str | JudgeError:
        try:
            [reply] = await asked.complete(
                user_turn(how.prompt, *images),
                temperature=how.temperature,
                max_tokens=how.max_new_tokens,
                keep_truncated=True,  # as the other engines do
                tag="caption",
            )
        except JudgeError as error:
            return error
        return reply.strip()

    async def all_captions(rows: Sequence[Sequence[Image.Image]]) -> list[str | JudgeError]:
        return list(await asyncio.gather(*map(caption, rows)))

    return lambda rows: asyncio.run(all_captions(rows))


async def check_server(deployment: Deployment, prompt: str) -> None:
    """
    Ask a captioning server one cheap question.

    Raises:
        [`~judge.JudgeConfigError`]: if it does not answer, or there is no key for it.
    """
    deployment.check()
    place = {"model": deployment.model, "api_base": deployment.api_base}
    client = Judge({**deployment.extra, **place, "api_key": deployment.api_key}, max_retries=1)
    try:
        await client.complete(
            user_turn(prompt, Image.new("RGB", (56, 56), "white")),
            max_tokens=_PREFLIGHT_TOKENS,
            keep_truncated=True,
            tag="preflight",
        )
    except JudgeError as error:
        if error.reason not in _WORKS:
            raise JudgeConfigError(
                f"the captioner {deployment.where()} does not work: {error}"
            ) from error
