"""What a verdict is remembered by: a hash of all that can change it, and of nothing else."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.questions import Question, prompt
from trl_balcap.judge.settings import JudgeSettings

# litellm parameters of a deployment that say how it is reached, not what it answers.
_CHANGES_NO_ANSWER = {"timeout", "rpm", "tpm", "extra_headers", "organization", "weight", "order"}


class Keys:
    """Keys of the questions to one judge."""

    def __init__(self, settings: JudgeSettings):
        self._settings = settings
        self._constant: dict[tuple[str, bool], str] = {}  # what all keys of a kind share

    def question(
        self, deployments: Sequence[Deployment], question: Question[Any], *, schema: bool
    ) -> str:
        """The key of a question to deployments that hold, or do not hold, replies to a schema."""
        of_its_kind = (question.name, bool(question.images))  # which tells the deployments, too
        if of_its_kind not in self._constant:
            how = [
                question.name,
                prompt(question.name),
                self._settings.temperature,
                self._settings.max_tokens,
                schema,
                *_identity(deployments),
            ]
            self._constant[of_its_kind] = json.dumps(how, sort_keys=True, default=str)
        images = (image.digest for image in question.images)
        return _digest(self._constant[of_its_kind], question.text, *images)

    def messages(
        self,
        deployments: Sequence[Deployment],
        messages: list[dict[str, Any]],
        how: dict[str, Any],
    ) -> str:
        """The key of arbitrary messages; the number of the sample is to be added."""
        common = [messages, how, *_identity(deployments)]
        return _digest("complete", json.dumps(common, sort_keys=True, default=str))


def _identity(deployments: Sequence[Deployment]) -> list[Any]:
    # Deployments of one judge give one answer by definition, so the first names them all.
    first = deployments[0]
    extra = {k: v for k, v in first.extra.items() if k not in _CHANGES_NO_ANSWER}
    return [first.model, first.api_base, extra]


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()
