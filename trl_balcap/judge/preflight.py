"""The preflight: one cheap question to each deployment, once for all rewards of a judge."""

import asyncio
import logging
from collections.abc import Sequence

from PIL import Image

from trl_balcap.judge import questions
from trl_balcap.judge.dispatch import Dispatcher
from trl_balcap.judge.endpoints import Endpoint
from trl_balcap.judge.errors import JudgeConfigError, JudgeError
from trl_balcap.judge.failures import scrub
from trl_balcap.judge.image_store import ImageStore
from trl_balcap.judge.questions import Question
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.judge.tickets import UnreadableReply, repeats_ticket

logger = logging.getLogger(__name__)


class Preflight:
    """Tries the endpoints of a judge and remembers which work."""

    def __init__(self, settings: JudgeSettings, dispatcher: Dispatcher, images: ImageStore):
        self._settings = settings
        self._dispatcher = dispatcher
        self._images = images
        self._trials: dict[tuple[str, bool], asyncio.Future[str | None]] = {}

    async def run(self, text: Sequence[Endpoint], vision: Sequence[Endpoint] | None) -> None:
        """Ask every endpoint one question (with a blank image for those of `vision`).

        Raises:
            `JudgeConfigError`: if a model has no working endpoint.
        """
        roles = [(text, questions.preflight())]
        if vision is not None:
            blank = await self._images.encode(Image.new("RGB", (56, 56), "white"))
            roles.append((vision, questions.preflight(blank)))
        for endpoints, question in roles:
            problems = await asyncio.gather(*(self._tried(e, question) for e in endpoints))
            if None not in problems:
                raise JudgeConfigError("; ".join(str(problem) for problem in problems))

    async def _tried(self, endpoint: Endpoint, question: Question[bool]) -> str | None:
        """The outcome of the trial, which all rewards of a judge share."""
        key = (endpoint.deployment.where(), bool(question.images))
        if key not in self._trials:
            self._trials[key] = asyncio.ensure_future(self._trial(endpoint, question))
        problem = "the trial was cancelled"
        try:
            problem = await asyncio.shield(self._trials[key])
        finally:
            if problem is not None:
                self._trials.pop(key, None)  # it may work by the next preflight
        return problem

    async def _trial(self, endpoint: Endpoint, question: Question[bool]) -> str | None:
        """What is wrong with an endpoint, or `None`."""
        deployment = endpoint.deployment
        where, text, ticket = deployment.where(), "", question.new_ticket()
        try:
            deployment.check()
            self._check_price(endpoint)
            text = await self._asked(endpoint, question, ticket)
            if not question.read(text, ticket).verdict:
                return f"the judge {where} says that it is not ready"
            if not repeats_ticket(text, ticket):
                logger.warning(
                    "The judge %s does not repeat the request's ticket as the last key of its "
                    "reply. Its replies only count if they are one JSON object and nothing else, "
                    "whose value does not occur in the judged text.",
                    where,
                )
        except JudgeError as error:
            if error.reason == "rate_limited":
                return None  # it is reachable, and the key is valid
            shown = " when it is shown an image" if question.images else ""
            return f"the judge {where} does not work{shown}: {error}"
        except UnreadableReply as error:
            shown = scrub(text, deployment)
            return f"the judge {where} does not answer in JSON as asked ({error}): {shown!r}"
        except ImportError as error:  # litellm imports provider packages on demand
            missing = f"the judge {where} needs a package that is not installed: {error}"
            raise JudgeConfigError(missing) from error
        return None

    def _check_price(self, endpoint: Endpoint) -> None:
        if self._settings.budget_usd is not None and endpoint.price is None:
            raise JudgeConfigError(
                "budget_usd is set, but litellm's table has no price for "
                f"{endpoint.deployment.where()}. Pass Judge(price=(dollars per million prompt "
                "tokens, per million completion tokens)), or use budget_calls"
            )

    async def _asked(self, endpoint: Endpoint, question: Question[bool], ticket: str) -> str:
        settings = self._settings
        return await self._dispatcher.send(
            [endpoint],
            question.messages(ticket),
            tag=question.name,
            priority=0,
            max_retries=min(2, settings.max_retries),
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            response_format=question.response_format() if endpoint.has_schema else None,
        )
