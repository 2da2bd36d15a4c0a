"""What a failed attempt at a question means, and how much of it may be shown."""

import contextlib
import os
import re
import time
from email.utils import parsedate_to_datetime

from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.errors import JudgeError, Reason, shorten
from trl_balcap.judge.litellm_module import litellm_module


class Failure(Exception):
    """One failed attempt: why it failed, and what can be done about it.

    `again` says whether to retry the question, `retry_after` how many seconds the judge asked to
    wait, `fatal` whether every other question would fail too.
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


_DENIED = (401, 402, 403, 404)  # key, account, permission, model
_REFUSED = (400, 405, 409, 413, 415, 422)  # this question only: a retry cannot help


def failure_of(error: Exception) -> Failure:
    """Classify an exception of litellm, by its HTTP status or, if it has none, by its type."""
    known = litellm_module().exceptions
    message, status = str(error), _status(error)
    if isinstance(error, known.Timeout) or status == 408:
        return Failure("timeout", message, again=True)
    if isinstance(error, known.RateLimitError) or status == 429:
        wait = retry_after(error)
        return Failure("rate_limited", message, again=True, retry_after=wait)
    if isinstance(error, known.UnsupportedParamsError):
        return Failure("refused", message, again=False, fatal=True, reply=message)
    if status in _DENIED:
        return Failure("denied", message, again=False, fatal=True, reply=message)
    if status in _REFUSED:
        return Failure("refused", message, again=False, reply=message)
    wait = retry_after(error)
    return Failure("server_error", message, again=True, retry_after=wait, reply=message)


def redirected(where: str) -> Failure:
    """What a redirect means: an `api_base` that is no longer the right one."""
    message = f"the endpoint redirects ({where}), which is not followed: pass its new URL"
    return Failure("denied", message, again=False, fatal=True, reply=message)


def _status(error: Exception) -> int:
    status = getattr(error, "status_code", None)
    # litellm reports some failures as 500 and keeps the endpoint's own status separately.
    response = getattr(getattr(error, "response", None), "status_code", None)
    for given in (status, response):
        if isinstance(given, int) and given != 500:
            return given
    return 500


def retry_after(error: Exception) -> float | None:
    """Seconds that the judge asked to wait (`Retry-After`, in seconds or as a date)."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        value = headers.get("retry-after") if headers else None
        if value is not None:
            return seconds_of(value, now=time.time())
    return None


def seconds_of(value: str, *, now: float) -> float | None:
    """Seconds of a `Retry-After` header, `None` if it is neither a number nor a date.

    ```python
    >>> seconds_of("1.5", now=0.0), seconds_of("Thu, 01 Jan 1970 00:01:00 GMT", now=20.0)
    (1.5, 40.0)
    >>> seconds_of("soon", now=0.0) is None
    True

    ```
    """
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    return None


def scrub(message: str, *deployments: Deployment) -> str:
    """Shorten `message`, and remove keys and image bytes from it.

    ```python
    >>> scrub("Bad key sk-0123456789.", Deployment("openai/m", api_key="sk-0123456789"))
    'Bad key [key].'

    ```
    """
    named = (
        v for k, v in os.environ.items() if k.endswith(("_KEY", "_TOKEN", "_SECRET", "_PASSWORD"))
    )
    secrets = {*(s for d in deployments for s in d.secrets()), *named}
    for secret in sorted(secrets, key=len, reverse=True):  # "Bearer sk-..." before "sk-..."
        if len(secret) > 5:  # shorter ones are placeholders and could be parts of words
            message = message.replace(secret, "[key]")
    return shorten(_IMAGE_DATA.sub(";base64,[image]", message))


_IMAGE_DATA = re.compile(r";base64,[A-Za-z0-9+/=]*")
