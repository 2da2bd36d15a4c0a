"""[`Judge`]: what is asked, of whom, and within which limits."""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from trl_balcap.judge import questions
from trl_balcap.judge.background import on_judge_loop
from trl_balcap.judge.engine import Engine
from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.images import MAX_PIXELS
from trl_balcap.judge.replies import Linguistic, Verification
from trl_balcap.judge.settings import JudgeSettings, Model, Profile, deployments
from trl_balcap.judge.stats import JudgeStats


class Judge:
    r"""A language model (and a vision-language model) that judges captions, asked through litellm.

    Its methods are coroutines that may be awaited on any event loop, in any thread: the work happens
    on one background loop per process. A judge can be pickled; connections, limits and statistics
    are made anew in the process that uses it.

    Args:
        model (`str`, `dict` or list of them):
            A litellm model string, such as `"openai/gpt-4o-mini"` or `"scenes/oracle"`. A list
            names several deployments of the same judge: load is spread over those that work.
        vision_model (as `model`, *optional*):
            Who is asked when an image is shown. Default: `model`.
        api_base (`str`, *optional*):
            Base URL of an endpoint of one's own.
        api_key (`str`, *optional*):
            Default: what litellm reads from the environment. Never logged, cached or shown.
        temperature (`float` or `None`, defaults to `0.0`):
            Sampling temperature of the judge; `None` leaves it to the provider.
        max_tokens (`int`, *optional*):
            Bound on a reply's tokens. Default: the provider's.
        structured (`bool`, *optional*):
            Whether replies are held to a JSON schema by the provider. Default: where litellm's
            table says that it can.
        profile (`"questions"` or `"fused"`, defaults to `"questions"`):
            Four questions for each rollout, or two (decompose and verify in one look at the image,
            cover and linguistic in one reading): cheaper, and measured in `docs/judge.md`.
        max_concurrency (`int`, defaults to `256`):
            Questions under way at once, for each deployment. It adapts below this bound.
        timeout (`float`, defaults to `60`):
            Seconds for one answer.
        max_retries (`int`, defaults to `8`):
            Further tries after a timeout, a 429, a 5xx or a lost connection.
        batch_deadline (`float`, defaults to `600`):
            Seconds for the judging of one batch. Never more than half the process group's timeout.
        max_unscored (`float`, defaults to `0.5`):
            Share of a batch that may stay without verdict before the trainer stops the run.
        budget_usd, budget_calls (*optional*):
            What judging may cost; when it is spent, the trainer stops the run with a checkpoint.
        price (`tuple[float, float]`, *optional*):
            Dollars per million prompt tokens and per million completion tokens. Default: litellm's
            price table.
        cache (`str` or path, *optional*):
            Folder for verdicts on disk, shared by all processes and runs. Default: memory only.
        cache_size (`int`, defaults to 1 GiB):
            Bound of that folder in bytes; what was used least recently goes first.
        max_pixels (`int`, defaults to `1003520`):
            Larger images are scaled down before they are sent.
        extra (`dict`, *optional*):
            Further parameters of `litellm.acompletion`, such as `{"reasoning_effort": "low"}`.

    Raises:
        `JudgeConfigError`: if a setting is out of range.

    Example:

    ```python
    >>> judge = Judge("scenes/oracle", max_concurrency=8)
    >>> judge
    Judge('scenes/oracle')

    ```
    """

    def __init__(
        self,
        model: Model,
        *,
        vision_model: Model | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
        structured: bool | None = None,
        profile: Profile = "questions",
        max_concurrency: int = 256,
        timeout: float = 60.0,
        max_retries: int = 8,
        batch_deadline: float = 600.0,
        max_unscored: float = 0.5,
        budget_usd: float | None = None,
        budget_calls: int | None = None,
        price: tuple[float, float] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_size: int = 2**30,
        max_pixels: int = MAX_PIXELS,
        extra: Mapping[str, Any] | None = None,
    ):
        text = deployments(model, api_base=api_base, api_key=api_key, extra=extra)
        vision = text
        if vision_model is not None:
            vision = deployments(vision_model, api_base=api_base, api_key=api_key, extra=extra)
        self.settings = JudgeSettings(
            text=text,
            vision=vision,
            temperature=temperature,
            max_tokens=max_tokens,
            structured=structured,
            profile=profile,
            max_concurrency=max_concurrency,
            timeout=timeout,
            max_retries=max_retries,
            batch_deadline=batch_deadline,
            max_unscored=max_unscored,
            budget_usd=budget_usd,
            budget_calls=budget_calls,
            price=price,
            cache=None if cache is None else os.fspath(cache),
            cache_size=cache_size,
            max_pixels=max_pixels,
        )
        self._engine: tuple[int, Engine] | None = None
        self._judging = 0

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Judge":
        """The judge that the environment variables `TRL_BALCAP_JUDGE_*` describe.

        `TRL_BALCAP_JUDGE_MODEL` is required. Each other argument of [`Judge`] has the variable of
        its name, such as `TRL_BALCAP_JUDGE_API_BASE` or `TRL_BALCAP_JUDGE_MAX_CONCURRENCY`.

        Raises:
            `JudgeConfigError`: if the model is not set, a variable is unknown or has no valid value.

        Example:

        ```python
        >>> Judge.from_env({"TRL_BALCAP_JUDGE_MODEL": "scenes/oracle"})
        Judge('scenes/oracle')

        ```
        """
        prefix = "TRL_BALCAP_JUDGE_"
        given = {
            k.removeprefix(prefix).lower(): v for k, v in environ.items() if k.startswith(prefix)
        }
        if not given.get("model"):
            raise JudgeConfigError(
                f"{prefix}MODEL is not set. Set it to a litellm model string such as "
                "'openai/gpt-4o-mini' or 'scenes/oracle', or build the reward with a Judge(...)"
            )
        options: dict[str, Any] = {}
        for name, value in given.items():
            if name not in _FROM_ENV:
                known = ", ".join(f"{prefix}{n.upper()}" for n in _FROM_ENV)
                raise JudgeConfigError(f"unknown variable {prefix}{name.upper()}; known: {known}")
            try:
                options[name] = _FROM_ENV[name](value)
            except ValueError as error:
                raise JudgeConfigError(
                    f"{prefix}{name.upper()}={value!r} is not a valid value: {error}"
                ) from error
        return cls(**options)

    def __repr__(self) -> str:
        models = [d.where() for d in self.settings.text]
        if self.settings.vision != self.settings.text:
            models += [d.where() for d in self.settings.vision]
        return f"Judge({', '.join(map(repr, models))})"

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.settings = state["settings"]
        self._engine = None
        self._judging = 0

    # ---- the questions -------------------------------------------------------------------------

    async def decompose(self, text: str) -> list[str]:
        """Split a caption into atomic assertions. Equal assertions count once.

        Raises:
            `JudgeError`: if the judge gives no readable answer.
        """
        return list(await on_judge_loop(self.engine().ask(questions.decompose(text))))

    async def verify(self, image: Any, assertions: Sequence[str]) -> list[Verification]:
        """Whether each assertion is correct, and whether it points at something in the image."""
        return list(await on_judge_loop(self._verify(image, assertions)))

    async def cover(self, assertions: Sequence[str], units: Sequence[str]) -> list[bool]:
        """Whether the assertions cover each of the reference units."""
        return list(await on_judge_loop(self._cover(assertions, units)))

    async def linguistic(self, text: str) -> Linguistic:
        """Grade clarity, fluency and coherency, each from 0 to 10."""
        return await on_judge_loop(self.engine().ask(questions.linguistic(text)))

    async def look(self, image: Any, text: str) -> list[tuple[str, Verification]]:
        """Decompose and verify in one look at the image (the fused profile)."""
        return list(await on_judge_loop(self._look(image, text)))

    async def read(self, text: str, units: Sequence[str]) -> tuple[list[bool], Linguistic]:
        """Cover and linguistic in one reading of the caption (the fused profile)."""
        covered, grades = await on_judge_loop(self.engine().ask(questions.read(text, units)))
        return list(covered), grades

    async def complete(
        self,
        messages: list[dict[str, Any]],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        n: int = 1,
        first_sample: int = 0,
        tag: str = "complete",
    ) -> list[str]:
        """`n` raw replies to arbitrary chat messages, with images as data URLs where needed.

        The same limits, retries, budget, cache and statistics as the questions. `temperature=None`
        leaves it to the provider. Replies are cached by their number: `first_sample` is the number
        of the first, so that a new attempt gets new replies. `tag` names the calls in the
        statistics.

        Raises:
            `JudgeError`: if the judge gives no complete reply.
        """
        return await on_judge_loop(
            self.engine().complete(
                messages,
                model=model,
                temperature=temperature,
                max_tokens=max_tokens,
                top_p=top_p,
                n=n,
                first_sample=first_sample,
                tag=tag,
            )
        )

    async def preflight(self, *, vision: bool = True) -> None:
        """Ask each model one cheap question, so that a judge that cannot work says so at start.

        Raises:
            `JudgeConfigError`: naming the model, what it answered and the way out.
        """
        await on_judge_loop(self.engine().preflight(vision=vision))

    # ---- batches ------------------------------------------------------------------------------

    def enter_batch(self) -> None:
        """A reward begins to wait for a batch's verdicts."""
        with _making:
            self._judging += 1

    def leave_batch(self) -> dict[str, float]:
        """A reward has its verdicts: the batch's metrics for the last one of them, else nothing.

        All rewards of a judge wait side by side, and what they share belongs to none of them. So the
        judge's metrics are logged once, when nobody waits any more.
        """
        with _making:
            self._judging -= 1
            if self._judging:
                return {}
        return self.engine().metrics()

    # ---- inside the judge loop -----------------------------------------------------------------

    def engine(self) -> Engine:
        """The engine of this judge in this process."""
        with _making:
            if self._engine is None or self._engine[0] != os.getpid():
                self._engine = (os.getpid(), Engine(self.settings))
            return self._engine[1]

    @property
    def stats(self) -> JudgeStats:
        """What this judge has taken in this process so far."""
        return self.engine().stats

    async def _verify(self, image: Any, assertions: Sequence[str]) -> Sequence[Verification]:
        if not assertions:
            return ()
        engine = self.engine()
        return await engine.ask(questions.verify(await engine.encode(image), assertions))

    async def _cover(self, assertions: Sequence[str], units: Sequence[str]) -> Sequence[bool]:
        if not assertions:
            return [False] * len(units)
        if not units:
            return ()
        return await self.engine().ask(questions.cover(assertions, units))

    async def _look(self, image: Any, text: str) -> Sequence[tuple[str, Verification]]:
        engine = self.engine()
        return await engine.ask(questions.look(await engine.encode(image), text))


_making = threading.Lock()  # engines are made by whichever thread asks first


def _price(value: str) -> tuple[float, float]:
    prompt, completion = value.split(",")
    return float(prompt), float(completion)


def _boolean(value: str) -> bool:
    if value.lower() in ("1", "true", "yes"):
        return True
    if value.lower() in ("0", "false", "no"):
        return False
    raise ValueError("expected true or false")


_FROM_ENV: dict[str, Any] = {
    "model": str,
    "vision_model": str,
    "api_base": str,
    "api_key": str,
    "temperature": float,
    "max_tokens": int,
    "structured": _boolean,
    "profile": str,
    "max_concurrency": int,
    "timeout": float,
    "max_retries": int,
    "batch_deadline": float,
    "max_unscored": float,
    "budget_usd": float,
    "budget_calls": int,
    "price": _price,
    "cache": str,
    "cache_size": int,
    "max_pixels": int,
}
