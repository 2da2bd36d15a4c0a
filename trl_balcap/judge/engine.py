"""Where questions become verdicts: shared, limited, retried, validated, counted.

A question passes, in this order: the memo and the flights (an equal question under way is joined),
the disk cache, the budget, the limit of the deployment that takes it, litellm, and the check of its
reply. One `Engine` per judge and process; everything in it happens on the judge loop.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from PIL import Image

from trl_balcap.judge import client, questions
from trl_balcap.judge.cache import ReplyCache
from trl_balcap.judge.client import Deployment, Failure, Reply
from trl_balcap.judge.collector import fewer_collections
from trl_balcap.judge.errors import JudgeConfigError, JudgeError
from trl_balcap.judge.images import EncodedImage, encode_image, open_image, pixel_digest
from trl_balcap.judge.limiter import AdaptiveLimit
from trl_balcap.judge.prices import price_of
from trl_balcap.judge.questions import Question, prompt
from trl_balcap.judge.ranks import world_size
from trl_balcap.judge.replies import UnreadableReply
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.judge.stats import BatchMetrics, JudgeStats

Verdict = TypeVar("Verdict")

_MEMO_SIZE = 8192  # verdicts kept in memory, least recently used go first
_IMAGES_KEPT = 256
_BACKOFF_START, _BACKOFF_MAX = 0.5, 30.0  # seconds
_REST_AFTER = 3  # failures in a row after which a deployment is left alone for a while
_REST_MAX = 60.0  # seconds


@dataclass
class _Flight:
    """A question under way and how many wait for it; nobody waiting means it is called off."""

    task: asyncio.Task[Any]
    waiters: int = 0


class _Place:
    """A deployment with what has been learned about it: its limit, and whether it works."""

    def __init__(self, deployment: Deployment, settings: JudgeSettings):
        self.deployment = deployment
        self.limit = AdaptiveLimit(settings.max_concurrency)
        self._given_price = settings.price
        self._failures = 0
        self._rests_until = 0.0

    @cached_property
    def price(self) -> tuple[float, float] | None:
        """Dollars per million prompt and completion tokens."""
        return self._given_price or price_of(self.deployment)

    def works(self) -> bool:
        """Whether to send a question there. After a rest, one at a time tries a place that failed."""
        if time.monotonic() < self._rests_until:
            return False
        return self._failures < _REST_AFTER or self.limit.load() == 0

    def worked(self) -> None:
        self._failures = 0
        self.limit.answered()

    def failed(self, failure: Failure, epoch: int) -> None:
        if failure.reason in ("timeout", "rate_limited"):
            self.limit.push_back(epoch, failure.retry_after)
        if failure.fatal:
            self._failures += _REST_AFTER
        elif failure.reason in ("timeout", "server_error"):
            self._failures += 1
        if self._failures >= _REST_AFTER:
            rest = min(_REST_MAX, 2.0 ** min(10, self._failures - _REST_AFTER + 1))
            self._rests_until = time.monotonic() + rest


class Engine:
    """Asks one judge (a text model and a vision model, each perhaps at several places)."""

    def __init__(self, settings: JudgeSettings):
        self.settings = settings
        self.stats = JudgeStats()
        self._text = [_Place(d, settings) for d in settings.text]
        self._vision = self._text
        if settings.vision != settings.text:
            self._vision = [_Place(d, settings) for d in settings.vision]
        self._memo: OrderedDict[str, Any] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._images: OrderedDict[str, asyncio.Future[EncodedImage]] = OrderedDict()
        self._image_of: dict[int, tuple[weakref.ref, asyncio.Future[EncodedImage]]] = {}
        self._encoders = ThreadPoolExecutor(2, "trl-balcap-images")
        self._cache = None
        if settings.cache is not None:
            self._cache = ReplyCache(settings.cache, settings.cache_size)
        self._latencies: deque[float] = deque(maxlen=65536)  # since the last metrics()
        self._under_way = 0
        self._batch = BatchMetrics()
        self._schema: dict[str, bool] = {}
        self._constant: dict[tuple[str, bool], str] = {}  # what all keys of a kind share
        self._trials: dict[tuple[str, bool], asyncio.Future[str | None]] = {}
        self._others: dict[str, list[_Place]] = {}

    # ---- questions -----------------------------------------------------------------------------

    async def ask(self, question: Question[Verdict]) -> Verdict:
        """The verdict on a question, from memory, a flight under way, or the judge."""
        places = self._vision if question.images else self._text
        key = self._key(places, question)

        async def fly() -> Verdict:
            return await self._judge(key, question, places)

        return await self._shared(key, fly)

    async def complete(
        self,
        messages: list[dict[str, Any]],
        *,
        model: str | None,
        temperature: float | None,
        top_p: float | None,
        max_tokens: int | None,
        n: int,
        first_sample: int,
        tag: str,
    ) -> list[str]:
        """`n` replies to arbitrary messages, under the same limit, budget, retries and cache."""
        places = self._text if model is None else self._places_of(model)
        how = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        common = [_identity(places), messages, how, self._extra(places)]
        digest = _digest("complete", json.dumps(common, sort_keys=True, default=str))

        async def one(sample: int) -> str:
            key = f"{digest}-{sample}"

            async def fly() -> str:
                cached = await self._from_disk(key)
                if cached is not None:
                    return cached
                reply = await self._send(places, messages, tag=tag, priority=1, **how)
                return await self._to_disk(key, reply.text, places)

            return await self._shared(key, fly)

        return list(await asyncio.gather(*(one(first_sample + i) for i in range(n))))

    async def _shared(self, key: str, fly: Callable[[], Any]) -> Any:
        """The result of `fly`, which runs once for all who ask for `key` at the same time."""
        self.stats.questions += 1
        if key in self._memo:
            self._memo.move_to_end(key)
            self.stats.cache_hits += 1
            return self._memo[key]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(fly()))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        else:
            self.stats.shared += 1
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                self._flights.pop(key, None)

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled() and task.exception() is None:
            self._memo[key] = task.result()
            if len(self._memo) > _MEMO_SIZE:
                self._memo.popitem(last=False)

    async def _judge(
        self, key: str, question: Question[Verdict], places: Sequence[_Place]
    ) -> Verdict:
        cached = await self._from_disk(key)
        if cached is not None:
            with contextlib.suppress(UnreadableReply):  # stored by a release that read it
                return question.parse(cached)
        messages = question.messages()
        schema = question.response_format() if self._has_schema(places[0]) else None
        problem: JudgeError | None = None
        for _ in range(2):  # a reply that cannot be read is asked for once more
            try:
                reply = await self._send(
                    places,
                    messages,
                    tag=question.name,
                    priority=question.priority,
                    temperature=self.settings.temperature,
                    max_tokens=self.settings.max_tokens,
                    response_format=schema,
                )
                verdict = question.parse(reply.text)
            except UnreadableReply as error:
                shown = client.scrub(reply.text, *(place.deployment for place in places))
                problem = JudgeError("unreadable", str(error), shown)
            except JudgeError as error:
                if error.reason not in ("truncated", "unreadable"):
                    raise
                problem = error
            else:
                await self._to_disk(key, reply.text, places)
                return verdict
        assert problem is not None
        raise problem

    async def _from_disk(self, key: str) -> str | None:
        if self._cache is None:
            return None
        cached = await self._cache.get(key)
        if cached is None:
            return None
        self.stats.cache_hits += 1
        self.stats.disk_hits += 1
        return cached.text

    async def _to_disk(self, key: str, text: str, places: Sequence[_Place]) -> str:
        if self._cache is not None:
            await self._cache.set(key, text, places[0].deployment.model)
        return text

    # ---- sending -------------------------------------------------------------------------------

    async def _send(
        self,
        places: Sequence[_Place],
        messages: list[dict[str, Any]],
        *,
        tag: str,
        priority: int,
        max_retries: int | None = None,
        **how: Any,
    ) -> Reply:
        """A complete reply, after as many tries as it takes and is allowed."""
        if max_retries is None:
            max_retries = self.settings.max_retries
        tried: list[_Place] = []  # since the last wait
        tries = 0
        while True:
            self._check_budget()
            place = _pick(places, tried)
            # Those who have waited for the judge do not wait again behind those who have not.
            epoch = await place.limit.acquire(priority if not tries else -tries)
            try:
                reply = await self._attempt(place, tag, messages, how)
            except Failure as failure:
                place.failed(failure, epoch)
                tried.append(place)
                elsewhere = any(p.works() and p not in tried for p in places)
                tries += 1
                if tries > max_retries or not (failure.again or (failure.fatal and elsewhere)):
                    raise failure.as_error(place.deployment) from failure
                wait = _wait(tries, failure.retry_after)
            else:
                place.worked()
                if reply.failure is not None:
                    raise reply.failure.as_error(place.deployment)
                return reply
            finally:
                place.limit.release()
            self.stats.retries += 1
            if not elsewhere:
                # Outside of the limit, so that a waiting question keeps no place.
                tried.clear()
                await asyncio.sleep(wait)

    async def _attempt(
        self, place: _Place, tag: str, messages: list[dict[str, Any]], how: Mapping[str, Any]
    ) -> Reply:
        self._check_budget()
        self.stats.calls += 1
        self.stats.calls_of[tag] += 1
        start = time.monotonic()
        self._under_way += 1
        try:
            with fewer_collections():
                reply = await client.ask_once(
                    place.deployment, messages, timeout=self.settings.timeout, **how
                )
        finally:
            self._under_way -= 1
        self._latencies.append(time.monotonic() - start)
        self.stats.answers += 1
        self.stats.prompt_tokens += reply.prompt_tokens
        self.stats.completion_tokens += reply.completion_tokens
        if place.price is None:
            self.stats.unpriced_calls += 1
        else:
            self.stats.usd += (
                reply.prompt_tokens * place.price[0] + reply.completion_tokens * place.price[1]
            ) / 1e6
        return reply

    def _check_budget(self) -> None:
        """Raise if this process has spent its share of the budget, or would with what is under way."""
        stats, settings, ranks = self.stats, self.settings, world_size()
        calls, usd = settings.budget_calls, settings.budget_usd
        if calls is not None and stats.calls >= calls / ranks:
            raise JudgeError("over_budget", f"The budget of {calls} judge calls is spent.")
        if usd is not None:
            expected = stats.usd * (1 + self._under_way / max(1, stats.answers))
            if expected >= usd / ranks:
                raise JudgeError("over_budget", f"The judge budget of ${usd:g} is spent.")

    def metrics(self) -> dict[str, float]:
        """The numbers of what happened since the last call of this method, for TRL's log."""
        taken = self._batch.take(self.stats, self._latencies, self._limit(), world_size())
        self._latencies.clear()
        return taken

    def _limit(self) -> float:
        places = {id(place): place for place in (*self._text, *self._vision)}
        return float(sum(int(place.limit.limit) for place in places.values()))

    def _has_schema(self, place: _Place) -> bool:
        if self.settings.structured is not None:
            return self.settings.structured
        model = place.deployment.model
        if model not in self._schema:
            self._schema[model] = client.supports_schema(place.deployment)
        return self._schema[model]

    def _places_of(self, model: str) -> list[_Place]:
        """The places of another model than the judge's own, reached the same way."""
        for places in (self._text, self._vision, *self._others.values()):
            if places[0].deployment.model == model:
                return list(places)
        deployment = replace(self._text[0].deployment, model=model)
        client.provider_of(deployment)
        self._others[model] = [_Place(deployment, self.settings)]
        return self._others[model]

    # ---- preflight -----------------------------------------------------------------------------

    async def preflight(self, *, vision: bool) -> None:
        """Ask every deployment one question; raise if a model has none that works."""
        roles = [(self._text, questions.preflight())]
        if vision:
            blank = await self.encode(Image.new("RGB", (56, 56), "white"))
            roles.append((self._vision, questions.preflight(blank)))
        for places, question in roles:
            problems = await asyncio.gather(*(self._tried(place, question) for place in places))
            if None not in problems:
                raise JudgeConfigError("; ".join(str(problem) for problem in problems))

    async def _tried(self, place: _Place, question: Question[bool]) -> str | None:
        """The trial's outcome; one trial for all rewards of a judge."""
        key = (place.deployment.where(), bool(question.images))
        if key not in self._trials:
            self._trials[key] = asyncio.ensure_future(self._trial(place, question))
        problem = await asyncio.shield(self._trials[key])
        if problem is not None:
            self._trials.pop(key, None)  # it may be mended before the next preflight
        return problem

    async def _trial(self, place: _Place, question: Question[bool]) -> str | None:
        """What is wrong with a deployment, or `None`."""
        deployment = place.deployment
        deployment.check()
        if self.settings.budget_usd is not None and place.price is None:
            raise JudgeConfigError(
                f"budget_usd is set, but litellm's table has no price for {deployment.where()}. Give "
                "Judge(price=(dollars per million prompt tokens, per million completion tokens)), or "
                "use budget_calls"
            )
        try:
            reply = await self._send(
                [place],
                question.messages(),
                tag=question.name,
                priority=0,
                max_retries=min(2, self.settings.max_retries),
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
                response_format=question.response_format() if self._has_schema(place) else None,
            )
            if not question.parse(reply.text):
                return f"the judge {deployment.where()} says that it is not ready"
        except JudgeError as error:
            if error.reason == "rate_limited":
                return None  # it is there, and the key is good
            shown = " when it is shown an image" if question.images else ""
            return f"the judge {deployment.where()} does not work{shown}: {error}"
        except UnreadableReply as error:
            return (
                f"the judge {deployment.where()} does not answer in JSON as asked ({error}): "
                f"{client.scrub(reply.text, deployment)!r}"
            )
        return None

    # ---- images --------------------------------------------------------------------------------

    async def encode(self, image: Any) -> tuple[EncodedImage, ...]:
        """The image (or list of images) as sent, encoded once however many rollouts show it."""
        images = image if isinstance(image, list | tuple) else [image]
        return tuple(await asyncio.gather(*(self._encoded(one) for one in images)))

    async def _encoded(self, image: Any) -> EncodedImage:
        known = self._image_of.get(id(image))
        if known is not None and known[0]() is image:
            return await asyncio.shield(known[1])
        future = asyncio.ensure_future(self._encode(image))
        try:
            # Not by value: PIL images are unhashable. The callback keeps a reused id from lying.
            key = id(image)
            reference = weakref.ref(image, lambda _: self._image_of.pop(key, None))
        except TypeError:
            pass  # a path or bytes: no identity worth keeping, the digest below finds the copy
        else:
            self._image_of[id(image)] = (reference, future)
        return await asyncio.shield(future)

    async def _encode(self, image: Any) -> EncodedImage:
        loop = asyncio.get_running_loop()

        def load() -> tuple[Any, str]:
            picture = open_image(image)
            return picture, pixel_digest(picture)

        picture, digest = await loop.run_in_executor(self._encoders, load)
        future = self._images.get(digest)
        if future is None:
            future = self._images[digest] = asyncio.ensure_future(
                loop.run_in_executor(
                    self._encoders, encode_image, picture, self.settings.max_pixels
                )
            )
            if len(self._images) > _IMAGES_KEPT:
                self._images.popitem(last=False)
        return await asyncio.shield(future)

    # ---- keys ----------------------------------------------------------------------------------

    def _key(self, places: Sequence[_Place], question: Question[Any]) -> str:
        """A hash of everything that can change the verdict, and of nothing else."""
        of_its_kind = (question.name, bool(question.images))  # which tells the places, too
        if of_its_kind not in self._constant:
            settings = self.settings
            how = [
                _identity(places),
                question.name,
                prompt(question.name),
                settings.temperature,
                settings.max_tokens,
                self._has_schema(places[0]),
                self._extra(places),
            ]
            self._constant[of_its_kind] = json.dumps(how, sort_keys=True, default=str)
        images = (image.digest for image in question.images)
        return _digest(self._constant[of_its_kind], question.text, *images)

    def _extra(self, places: Sequence[_Place]) -> dict[str, Any]:
        extra = places[0].deployment.extra
        return {name: extra[name] for name in extra if name not in _CHANGES_NO_ANSWER}


# litellm parameters of a deployment that say how it is reached, not what it answers.
_CHANGES_NO_ANSWER = {"timeout", "rpm", "tpm", "extra_headers", "organization", "weight", "order"}


def _identity(places: Sequence[_Place]) -> list[str | None]:
    # Deployments of one judge give one answer by definition, so the first names them all.
    first = places[0].deployment
    return [first.model, first.api_base]


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _pick(places: Sequence[_Place], tried: Sequence[_Place]) -> _Place:
    """The emptiest place that works and has not just failed at this question."""
    if len(places) == 1:
        return places[0]
    return min(
        places, key=lambda p: (not p.works(), p in tried, p.limit.paused_for(), p.limit.load())
    )


def _wait(tries: int, retry_after: float | None) -> float:
    """Seconds before the next try: doubling, and at least what the judge asks for.

    Half of the doubling and a quarter on top of the judge's wish are random, so that questions that
    failed together do not come back together.
    """
    longest = min(_BACKOFF_MAX, _BACKOFF_START * 2.0 ** (tries - 1))
    backoff = longest * random.uniform(0.5, 1.0)
    return max(backoff, (retry_after or 0.0) * random.uniform(1.0, 1.25))
