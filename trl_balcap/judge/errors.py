"""Errors between a question and its verdict, and who is at fault.

JudgeError          one question was not answered: the reward is `None` for that completion only
JudgeConfigError    no question can be answered (wrong key, unknown model): stop before training

A reason says why a row has no score, whether the judge or the row is at fault. Only the reasons in
`INFRASTRUCTURE_REASONS` mean that the next row will fail too.
"""

from typing import Literal, get_args

Reason = Literal[
    "timeout",
    "rate_limited",
    "server_error",
    "denied",
    "refused",
    "unreadable",
    "truncated",
    "over_budget",
    "bad_image",
    "no_reference",
    "internal_error",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
INFRASTRUCTURE_REASONS: frozenset[Reason] = frozenset(
    {"timeout", "rate_limited", "server_error", "denied"}
)
"""Reasons that no caption can cause: the judge is unreachable, or rejects the key, account or
model."""

MAX_REPLY_CHARS = 400
"""Characters kept of a failing reply: enough to see what went wrong without flooding the log."""


class JudgeError(Exception):
    """The judge did not answer a question.

    Args:
        reason (`str`):
            One of `REASONS`.
        message (`str`):
            What happened, for humans.
        reply (`str`, *optional*):
            The failing reply, cut to 400 characters. Never contains a key or image bytes.

    Example:

    ```python
    >>> error = JudgeError("unreadable", "no JSON object in the reply", reply="I would rather not.")
    >>> error.reason, error.reply
    ('unreadable', 'I would rather not.')

    ```
    """

    def __init__(self, reason: Reason, message: str, reply: str | None = None):
        super().__init__(f"{reason}: {message}")
        self.reason: Reason = reason
        self.message = message
        self.reply = None if reply is None else shorten(reply)

    def __reduce__(self):
        return type(self), (self.reason, self.message), {"reply": self.reply}


class JudgeConfigError(ValueError):
    """The judge cannot work as configured: unknown model, wrong key, no such endpoint."""


def shorten(text: str, limit: int = MAX_REPLY_CHARS) -> str:
    """Cut `text` to `limit` characters, noting how many were left out.

    ```python
    >>> shorten("abcdefgh", 3)
    'abc… (5 more characters)'

    ```
    """
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters)"
