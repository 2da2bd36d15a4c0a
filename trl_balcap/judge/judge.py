"""[`Judge`]: the questions it asks, the models it asks them of, and its limits."""

import asyncio
import inspect
import logging
import os
import textwrap
import threading
from asyncio import Task
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from trl_balcap.judge import choices, criteria, questions
from trl_balcap.judge.background import on_judge_loop
from trl_balcap.judge.choices import Choice
from trl_balcap.judge.criteria import Criterion
from trl_balcap.judge.engine import JudgeEngine
from trl_balcap.judge.gathering import Gathering
from trl_balcap.judge.images import EncodedImage
from trl_balcap.judge.replies import Linguistic, Verification
from trl_balcap.judge.settings import JudgeSettings, settings_from_environment, settings_help
from trl_balcap.judge.stats import JudgeStats

logger = logging.getLogger(__name__)
P = ParamSpec("P")
Verdict = TypeVar("Verdict")
T = TypeVar("T")


def _takes(
    settings: Callable[P, JudgeSettings],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give `__init__` the signature of the table, for type checkers, editors and `help`."""

    def signed(init: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        own = inspect.signature(init).parameters["self"]
        table = inspect.signature(settings)
        init.__signature__ = table.replace(  # type: ignore[attr-defined]
            parameters=[own, *table.parameters.values()], return_annotation=None
        )
        return init

    return signed


class Judge:
    r"""A language model (and a vision-language model) that judges captions, asked through litellm.

    Its methods are coroutines that can be awaited on any event loop, in any thread: the work
    happens on one background loop per process. A judge can be pickled; connections, limits and
    statistics are created afresh in the process that uses it.

    Its arguments are the settings of [`JudgeSettings`]; `help(Judge)` describes them.

    Raises:
        `JudgeConfigError`: if a setting is invalid.

    Example:

    ```python
    >>> judge = Judge("scenes/oracle", max_concurrency=8)
    >>> judge
    Judge('scenes/oracle')

    ```
    """

    @_takes(JudgeSettings)
    def __init__(self, *arguments: Any, **settings: Any):
        self.settings = JudgeSettings(*arguments, **settings)
        self._engine: tuple[int, JudgeEngine] | None = None
        self._judging = 0

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Judge":
        """Build the judge that the environment variables `TRL_BALCAP_JUDGE_*` describe.

        `TRL_BALCAP_JUDGE_MODEL` is required. Every other argument of [`Judge`] has a variable of
        the same name, such as `TRL_BALCAP_JUDGE_API_BASE` or `TRL_BALCAP_JUDGE_MAX_CONCURRENCY`.

        Raises:
            `JudgeConfigError`: if the model is not set, or a variable is unknown or invalid.

        Example:

        ```python
        >>> Judge.from_env({"TRL_BALCAP_JUDGE_MODEL": "scenes/oracle"})
        Judge('scenes/oracle')

        ```
        """
        return cls(**settings_from_environment(environ))

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

        With `profile="united"`, the same question grades the text for [`Judge.linguistic`].

        Raises:
            `JudgeError`: if there is no readable answer.
        """
        return list(await on_judge_loop(self._decompose(text)))

    async def verify(self, image: Any, assertions: Sequence[str]) -> list[Verification]:
        """Whether each assertion is correct, and whether it points at something in the image.

        With `profile="united"`, asked together with what the other rows of a batch assert about
        the image; only what no earlier batch has asserted.
        """
        return list(await on_judge_loop(self._verify(image, assertions)))

    async def cover(self, assertions: Sequence[str], units: Sequence[str]) -> list[bool]:
        """Whether the assertions cover each of the reference units."""
        return list(await on_judge_loop(self._cover(assertions, units)))

    async def linguistic(self, text: str) -> Linguistic:
        """Grade clarity, fluency and coherency, each from 0 to 10."""
        return await on_judge_loop(self._linguistic(text))

    async def look(self, image: Any, text: str) -> list[tuple[str, Verification]]:
        """Decompose and verify in one look at the image (the fused profile)."""
        return list(await on_judge_loop(self._look(image, text)))

    async def read(self, text: str, units: Sequence[str]) -> tuple[list[bool], Linguistic]:
        """Cover and linguistic in one reading of the caption (the fused profile)."""
        covered, grades = await on_judge_loop(self.engine().ask(questions.read(text, units)))
        return list(covered), grades

    async def ask(self, question: questions.Question[Verdict]) -> Verdict:
        """The verdict on a question of one's own: shared, limited, retried, cached like the others.

        Raises:
            `JudgeError`: if the judge gives no readable answer.
        """
        return await on_judge_loop(self.engine().ask(question))

    async def encode(self, image: Any) -> tuple[EncodedImage, ...]:
        """An image, or a list of images, as a question of one's own carries it."""
        return await on_judge_loop(self.engine().encode(image))

    async def write_questions(self, image: Any, count: int = 5) -> list[Choice]:
        """Write up to `count` multiple-choice questions about an image."""
        return list(await on_judge_loop(self._see(image, choices.ask, count)))

    async def quiz(self, image: Any, choice: Choice) -> int | None:
        """Which option answers the question, by the image; `image=None` is a guess without one."""
        if image is None:
            return await self.ask(choices.quiz((), choice))
        return await on_judge_loop(self._see(image, choices.quiz, choice))

    async def choose(self, text: str, choice: Choice) -> int | None:
        """Which option a caption names, `None` where it does not tell; no image is seen."""
        return await self.ask(choices.choose(text, choice))

    async def write_rubric(self, image: Any, references: Sequence[str]) -> list[Criterion]:
        """Write the criteria of a good caption of an image out of several references."""
        return list(await on_judge_loop(self._see(image, criteria.rubric, references)))

    async def meet(self, text: str, rubric: Sequence[Criterion]) -> list[bool]:
        """Whether a caption meets each of the criteria; no image is seen."""
        return list(await self.ask(criteria.meet(text, rubric)))

    async def rank(self, image: Any, texts: Sequence[str]) -> list[int]:
        """The place of each of several captions of one image, 1 for the best; equals share one."""
        return list(await on_judge_loop(self._see(image, criteria.rank, texts)))

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
        keep_truncated: bool = False,
        tag: str = "complete",
    ) -> list[str]:
        """`n` raw replies to arbitrary chat messages, with images as data URLs where needed.

        Limits, retries, budget, cache and statistics are those of the questions. `temperature=None`
        uses the provider's default. Replies are cached by number: `first_sample` is the number
        of the first one, so that a new attempt gets new replies. `keep_truncated` accepts replies
        cut off at `max_tokens`. `tag` names the calls in the statistics.

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
                keep_truncated=keep_truncated,
                tag=tag,
            )
        )

    async def preflight(self, *, vision: bool = True) -> None:
        """Ask each model one cheap question, so that a broken set-up fails before training.

        Raises:
            `JudgeConfigError`: with the model, its answer and a fix.
        """
        await on_judge_loop(self.engine().preflight(vision=vision))

    # ---- batches ------------------------------------------------------------------------------

    def enter_batch(self) -> None:
        """Called when a reward starts to wait for a batch's verdicts."""
        with _making:
            self._judging += 1

    def leave_batch(self) -> dict[str, float]:
        """Called when a reward has its verdicts. The last one gets the batch's metrics.

        The rewards of a judge wait side by side and share its work, so its metrics are logged
        once, when no reward is waiting any more.
        """
        with _making:
            self._judging -= 1
            if self._judging:
                return {}
        return self.engine().metrics()

    # ---- inside the judge loop -----------------------------------------------------------------

    def engine(self) -> JudgeEngine:
        """The engine of this judge in this process."""
        with _making:
            if self._engine is None or self._engine[0] != os.getpid():
                if self._engine is not None and self.settings.has_budget:
                    logger.warning(
                        "%r was forked. The child process counts its budget from zero: what parent "
                        "and child spend is not added up.",
                        self,
                    )
                self._engine = (os.getpid(), JudgeEngine(self.settings))
            return self._engine[1]

    @property
    def stats(self) -> JudgeStats:
        """What this judge has used in this process so far."""
        return self.engine().stats

    async def _see(
        self, image: Any, question: Callable[..., questions.Question[Verdict]], about: Any
    ) -> Verdict:
        engine = self.engine()
        return await engine.ask(question(await engine.encode(image), about))

    def side_by_side(self, rows: Iterable[tuple[Any, Coroutine[Any, Any, T]]]) -> list[Task[T]]:
        """Start the rows of a batch, each given as its image, or `None`, and its work.

        With `profile="united"`, the rows of an image wait for each other in [`Judge.verify`], if it
        is their own task that asks. To be called on the judge loop, as a reward's `score` is.
        """
        if not self._unites:
            return [asyncio.ensure_future(work) for _, work in rows]
        gathering = Gathering(self.engine().encode)
        return [gathering.start(image, work) for image, work in rows]

    @property
    def _unites(self) -> bool:
        return self.settings.profile == "united"

    async def _decompose(self, text: str) -> Sequence[str]:
        if self._unites:
            return (await self.engine().ask(questions.parse(text)))[0]
        return await self.engine().ask(questions.decompose(text))

    async def _linguistic(self, text: str) -> Linguistic:
        if self._unites:
            return (await self.engine().ask(questions.parse(text)))[1]
        return await self.engine().ask(questions.linguistic(text))

    async def _verify(self, image: Any, assertions: Sequence[str]) -> Sequence[Verification]:
        if not assertions:
            return ()
        engine = self.engine()
        if self._unites:
            return await engine.united.verify(image, assertions)
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


_making = threading.Lock()  # whichever thread asks first makes the engine

# Editors read the arguments from the signature; `help` and documentation tools read them here.
_raises = "\n    Raises:\n        `JudgeConfigError`"
_args = "\n    Args:\n" + textwrap.indent(settings_help(), " " * 8) + "\n"
Judge.__doc__ = (Judge.__doc__ or "").replace(_raises, _args + _raises, 1)
