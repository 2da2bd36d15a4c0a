"""Turns questions into verdicts: shared, limited, retried, validated and counted.

A question passes through, in this order: single-flight (an equal question is remembered or joined),
the disk cache, the dispatcher (budget, limit, litellm, retries), and the validation of its reply.
There is one `JudgeEngine` per judge and process, and everything in it runs on the judge loop.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from trl_balcap.judge.cache import ReplyCache
from trl_balcap.judge.deployments import Deployment, provider_of
from trl_balcap.judge.dispatch import Dispatcher
from trl_balcap.judge.endpoints import Endpoint
from trl_balcap.judge.errors import JudgeError
from trl_balcap.judge.failures import scrub
from trl_balcap.judge.image_store import ImageStore
from trl_balcap.judge.images import EncodedImage
from trl_balcap.judge.keys import Keys
from trl_balcap.judge.memory import VerdictMemory
from trl_balcap.judge.prefixes import PrefixTurns
from trl_balcap.judge.preflight import Preflight
from trl_balcap.judge.questions import Answer, Question
from trl_balcap.judge.samples import Sample, ask_for_samples
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.judge.single_flight import SingleFlight
from trl_balcap.judge.stats import JudgeStats
from trl_balcap.judge.tickets import TruncatedReply, UnreadableReply
from trl_balcap.judge.united import United

Verdict = TypeVar("Verdict")

_READ_IN_PLACE = 16_384  # characters of question and reply, a millisecond or two


class JudgeEngine:
    """Asks one judge: a text model and a vision model, each possibly with several endpoints."""

    def __init__(self, settings: JudgeSettings):
        self.settings = settings
        self.stats = JudgeStats()
        self.text = [Endpoint(d, settings) for d in settings.text]
        self.vision = self.text
        if settings.vision != settings.text:
            self.vision = [Endpoint(d, settings) for d in settings.vision]
        self.flights = SingleFlight(self.stats)
        self._together = SingleFlight(JudgeStats(), memo_size=0)
        self._others: dict[str, list[Endpoint]] = {}
        self._keys = Keys(settings)
        self._prefixes = PrefixTurns(settings.prefix_first)
        self._images = ImageStore(settings.max_pixels)
        self._dispatcher = Dispatcher(settings, self.stats)
        self._preflight = Preflight(settings, self._dispatcher, self._images)
        self._cache = None
        if settings.cache is not None:
            self._cache = ReplyCache(str(settings.cache), settings.cache_size)
        model = self.vision[0].deployment.model
        self.united = United(
            ask=self.ask,
            encode=self.encode,
            memory=VerdictMemory(self._key, self._cache, model),
            stats=self.stats,
            deadline=settings.batch_deadline,
        )

    async def ask(self, question: Question[Verdict]) -> Verdict:
        """The verdict on a question: from memory, from a call in flight, or from the judge."""
        endpoints = self.vision if question.images else self.text
        key = self._key(question)

        async def fly() -> Verdict:
            return await self._judge(key, question, endpoints)

        return await self.flights.result(key, fly)

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
        keep_truncated: bool,
        tag: str,
    ) -> list[str]:
        """`n` replies to arbitrary messages, with the same limit, budget, retries and cache."""
        endpoints = self.text if model is None else self._endpoints_of(model)
        how = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        kept = how | (
            {"keep_truncated": True} if keep_truncated else {}
        )  # accepts other replies, so has its own key
        common = self._keys.messages(_deployments(endpoints), messages, kept)

        keys = [f"{common}-{first_sample + i}" for i in range(n)]
        fresh = [key for key in dict.fromkeys(keys) if not self.flights.knows(key)]

        async def ask_fresh() -> dict[str, Sample]:
            cached = await asyncio.gather(*map(self._from_disk, fresh))
            found: dict[str, Sample] = {k: t for k, t in zip(fresh, cached, strict=True) if t}
            missing = [key for key in fresh if key not in found]
            asked = await ask_for_samples(
                self._dispatcher,
                endpoints,
                messages,
                len(missing),
                tag=tag,
                keep_truncated=keep_truncated,
                **how,
            )
            for key, sample in zip(missing, asked, strict=True):
                found[key] = sample
                if isinstance(sample, str):
                    await self._to_disk(key, sample, endpoints)
            return found

        async def one(key: str) -> str:
            async def fly() -> str:
                # One request for all samples not asked for yet.
                together = f"{common}-{fresh}"
                sample = (await self._together.result(together, ask_fresh))[key]
                if isinstance(sample, JudgeError):
                    raise sample
                return sample

            return await self.flights.result(key, fly)

        return list(await asyncio.gather(*map(one, keys)))

    async def preflight(self, *, vision: bool) -> None:
        """Ask every deployment one question; raise if a model has no working one."""
        if self._cache is not None:
            await self._cache.open()
        await self._preflight.run(self.text, self.vision if vision else None)

    async def encode(self, image: Any) -> tuple[EncodedImage, ...]:
        """The image (or list of images) as sent, encoded once for all rollouts that share it."""
        return await self._images.encode(image)

    def metrics(self) -> dict[str, float]:
        """Metrics since the last call of this method, for TRL's log."""
        endpoints = {id(endpoint): endpoint for endpoint in (*self.text, *self.vision)}
        limit = sum(int(endpoint.limit.limit) for endpoint in endpoints.values())
        return self._dispatcher.metrics(float(limit))

    def _key(self, question: Question[Any]) -> str:
        endpoints = self.vision if question.images else self.text
        schema = endpoints[0].has_schema
        return self._keys.question(_deployments(endpoints), question, schema=schema)

    async def _judge(
        self, key: str, question: Question[Verdict], endpoints: Sequence[Endpoint]
    ) -> Verdict:
        cached = await self._from_disk(key)
        if cached is not None:
            with contextlib.suppress(UnreadableReply):  # stored by a release that could read it
                return question.recall(cached)
        schema = question.response_format() if endpoints[0].has_schema else None
        problem: JudgeError | None = None
        text = ""
        for _ in range(2):  # an unreadable reply is asked for once more
            ticket = question.new_ticket()
            try:
                async with self._prefixes.turn(question):
                    text = await self._dispatcher.send(
                        endpoints,
                        question.messages(ticket),
                        tag=question.name,
                        priority=question.priority,
                        temperature=self.settings.temperature,
                        max_tokens=reply_bound(question, self.settings.max_tokens),
                        response_format=schema,
                    )
                answer = await _read(question, text, ticket)
            except UnreadableReply as error:
                shown = scrub(text, *_deployments(endpoints))
                reason = "truncated" if isinstance(error, TruncatedReply) else "unreadable"
                problem = JudgeError(reason, str(error), shown)
            except JudgeError as error:
                if error.reason not in ("truncated", "unreadable"):
                    raise
                problem = error
            else:
                await self._to_disk(key, answer.stored, endpoints)
                return answer.verdict
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

    async def _to_disk(self, key: str, text: str, endpoints: Sequence[Endpoint]) -> None:
        if self._cache is not None:
            await self._cache.set(key, text, endpoints[0].deployment.model)

    def _endpoints_of(self, model: str) -> list[Endpoint]:
        """The endpoints of a model other than the judge's, reached with the same settings."""
        for endpoints in (self.text, self.vision, *self._others.values()):
            if endpoints[0].deployment.model == model:
                return list(endpoints)
        deployment = replace(self.text[0].deployment, model=model)
        provider_of(deployment)
        self._others[model] = [Endpoint(deployment, self.settings)]
        return self._others[model]


async def _read(question: Question[Verdict], reply: str, ticket: str) -> Answer[Verdict]:
    """The answer in a reply. Long replies are parsed in a thread, to keep the judge loop free."""
    if len(reply) + len(question.text) <= _READ_IN_PLACE:
        return question.read(reply, ticket)
    return await asyncio.to_thread(question.read, reply, ticket)


def _deployments(endpoints: Sequence[Endpoint]) -> list[Deployment]:
    return [endpoint.deployment for endpoint in endpoints]


def reply_bound(question: Question[Any], max_tokens: int | None) -> int | None:
    """Maximum tokens of a reply: more than `max_tokens` if the question is long.

    A reply repeats the items it was asked about or gives a verdict on each. One token per
    character of the question leaves room for either.
    """
    return None if max_tokens is None else max(max_tokens, len(question.text))
