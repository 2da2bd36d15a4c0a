"""What a failed attempt at a question means, and what may be shown of it."""

import contextlib
import os
import re

from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.errors import JudgeError, Reason, shorten
from trl_balcap.judge.litellm_module import litellm_module


class Failure(Exception):
    """One failed attempt: why, and what may be done about it.

    `again` is whether the same question may be asked again, `retry_after` how many seconds the
    judge asked to be left alone, `fatal` whether no other question can fare better.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        again: bool,
        retry_after: float | None = None,
        fatal: bool = False,
        reply: str | None = None,
    ):
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.again = again
        self.retry_after = retry_after
        self.fatal = fatal
        self.reply = reply

    def as_error(self, deployment: Deployment) -> JudgeError:
        reply = None if self.reply is None else scrub(self.reply, deployment)
        return JudgeError(self.reason, scrub(self.message, deployment), reply)


def failure_of(error: Exception) -> Failure:
    """What an exception of litellm means. The order matters: they inherit from each other."""
    known = litellm_module().exceptions
    message = str(error)
    if isinstance(error, known.Timeout):
        return Failure("timeout", message, again=True)
    if isinstance(error, known.RateLimitError):
        wait = retry_after(error)
        return Failure("rate_limited", message, again=True, retry_after=wait)
    fatal = (
        known.AuthenticationError,
        known.PermissionDeniedError,
        known.NotFoundError,
        known.PaymentRequiredError,
        known.UnsupportedParamsError,
    )
    if isinstance(error, fatal):
        return Failure("refused", message, again=False, fatal=True, reply=message)
    if isinstance(error, known.BadRequestError | known.UnprocessableEntityError):
        # Too long, against a content policy, or malformed: asking again cannot help.
        return Failure("refused", message, again=False, reply=message)
    wait = retry_after(error)
    return Failure("server_error", message, again=True, retry_after=wait, reply=message)


def retry_after(error: Exception) -> float | None:
    """Seconds that the judge asked to be left alone (`Retry-After`, in seconds)."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        value = headers.get("retry-after") if headers else None
        if value is not None:
            with contextlib.suppress(ValueError):
                return max(0.0, float(value))  # the date form is rare; backoff covers it
    return None


def scrub(message: str, *deployments: Deployment) -> str:
    """`message` in short, without keys and image bytes, whoever put them there.

    ```python
    >>> scrub("Bad key sk-0123456789.", Deployment("openai/m", api_key="sk-0123456789"))
    'Bad key [key].'

    ```
    """
    named = (v for k, v in os.environ.items() if k.endswith(("_API_KEY", "_TOKEN", "_SECRET")))
    for secret in (*(s for d in deployments for s in d.secrets()), *named):
        if len(secret) > 5:  # shorter ones are placeholders, and parts of ordinary words
            message = message.replace(secret, "[key]")
    return shorten(_IMAGE_DATA.sub(";base64,[image]", message))


_IMAGE_DATA = re.compile(r";base64,[A-Za-z0-9+/=]*")
