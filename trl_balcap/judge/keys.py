"""Cache keys of verdicts: a hash of everything that can change a verdict, and nothing else."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from trl_balcap.judge.deployments import Deployment, is_secret
from trl_balcap.judge.questions import Question
from trl_balcap.judge.settings import JudgeSettings

# litellm parameters that affect how a deployment is reached, not what it answers.
_CHANGES_NO_ANSWER = {
    "timeout",
    "rpm",
    "tpm",
    "headers",
    "extra_headers",
    "weight",
    "order",
    "ssl_verify",
}


class Keys:
    """Keys of the questions to one judge."""

    def __init__(self, settings: JudgeSettings):
        self._settings = settings
        self._constant: dict[tuple[str, str, bool], str] = {}  # shared part of all keys of a kind

    def question(
        self, deployments: Sequence[Deployment], question: Question[Any], *, schema: bool
    ) -> str:
        """The key of a question to deployments with (or without) a reply schema."""
        # Whether there are images also determines the deployments.
        of_its_kind = (question.name, question.prompt, bool(question.images))
        if of_its_kind not in self._constant:
            how = [
                question.name,
                question.prompt,
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
        """The key of arbitrary messages, to which the sample's number is added."""
        common = [messages, how, *_identity(deployments)]
        return _digest("complete", json.dumps(common, sort_keys=True, default=str))


def _identity(deployments: Sequence[Deployment]) -> list[Any]:
    # Deployments of one judge are interchangeable by definition, so the first represents them all.
    first = deployments[0]
    extra = {
        name: value
        for name, value in first.extra.items()
        if name not in _CHANGES_NO_ANSWER and not is_secret(name)
    }
    # Headers may name the tenant or the model behind a gateway. Secrets do not change the answer,
    # and verdicts must still be found after a new key.
    headers = {k.lower(): v for k, v in first.headers().items() if not is_secret(k)}
    return [first.model, _without_secrets(first.base()), extra, sorted(headers.items())]


def _without_secrets(base: str | None) -> str | None:
    if base is None:
        return None
    url = urlsplit(base)
    query = urlencode([(k, v) for k, v in parse_qsl(url.query) if not is_secret(k)])
    return SplitResult(url.scheme, url.netloc, url.path.rstrip("/"), query, "").geturl()


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()
