"""Captions from an OpenAI-compatible server, or any provider that litellm supports."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from trl_balcap.captioning.engine import Generation, user_turn
from trl_balcap.captioning.listing import ImageRow
from trl_balcap.captioning.window import WINDOW, opened
from trl_balcap.judge import Judge, JudgeConfigError, JudgeError
from trl_balcap.judge.deployments import Deployment

__all__ = ["ServerCaptioner", "check_server", "server_captioner"]

_PREFLIGHT_TOKENS = 64
# The server is up and the key is valid; its caption of a white square does not matter.
_WORKS = ("unreadable", "rate_limited")


@dataclass(frozen=True)
class ServerCaptioner:
    """
    Asks one or more servers for captions, as many at a time as they take.

    Args:
        client ([`~judge.Judge`]): Sends the requests: its limits, retries and endpoints.
        how ([`Generation`]): Prompt, bounds and temperature.
    """

    client: Judge
    how: Generation

    @property
    def width(self) -> int:
        """Images at a time: half of them in flight, while the others are read and encoded."""
        settings = self.client.settings
        return min(WINDOW, 2 * settings.max_concurrency * len(settings.text))

    async def caption(self, row: ImageRow, max_pixels: int) -> Mapping[str, str] | str:
        """
        The caption of a row, whose images are opened only now, or why there is none.

        Raises:
            [`~judge.JudgeError`]: if there is no reply.
        """
        images = await opened(row, max_pixels)
        if isinstance(images, str):
            return images
        messages = await asyncio.to_thread(user_turn, self.how.prompt, *images)
        [reply] = await self.client.complete(
            messages,
            temperature=self.how.temperature,
            max_tokens=self.how.max_new_tokens,
            keep_truncated=True,  # as the other engines do
            tag="caption",
        )
        return {"caption": reply.strip()}


def server_captioner(
    model: str,
    how: Generation,
    api_base: str | Sequence[str] | None = None,
    client: Judge | None = None,
) -> ServerCaptioner:
    """
    A captioner that asks servers, `how.batch_size` requests at a time each. It asks each one cheap
    question first, so that a wrong address or missing key is reported once rather than for every
    image.

    Args:
        model (`str`): A litellm model string.
        how ([`Generation`]): Prompt, bounds and temperature.
        api_base (`str` or `Sequence[str]`, *optional*): URL of the server, or of several.
        client ([`~judge.Judge`], *optional*): Sends the requests, for one who reads its statistics.

    Raises:
        [`~judge.JudgeConfigError`]: if a server does not answer, or there is no key for it.
        `ValueError`: if a seed is given, which not every server takes.
    """
    if how.seed is not None:
        raise ValueError(
            f"The seed {how.seed} is for an engine on this machine: not every server takes one. "
            "Leave it out, or start the server with a seed."
        )
    # Not a judge, but the same engine: retries, limits, one place that calls litellm.
    bases = [api_base] if api_base is None or isinstance(api_base, str) else list(api_base)
    servers = [{"model": model, "api_base": base} for base in bases]
    asked = client or Judge(servers, max_concurrency=how.batch_size)

    async def check() -> None:
        await asyncio.gather(*(check_server(one, how.prompt) for one in asked.settings.text))

    asyncio.run(check())
    return ServerCaptioner(asked, how)


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
