"""What can go wrong between a question and its verdict, and whose fault it is.

JudgeError          one question was not answered: the reward is `None` for that completion alone
JudgeConfigError    no question can ever be answered (wrong key, unknown model): stop at start

A reason says why a row has no score, of the judge's making or of the row's own. Only the reasons in
`INFRASTRUCTURE_REASONS` say that the next row will fare no better.
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
"""Reasons that no caption can cause: the judge is not there, or not for us (key, account,
model)."""

MAX_REPLY_CHARS = 400
"""How much of a failing reply is kept: enough to see what the judge said, too little to flood."""


class JudgeError(Exception):
    """A question that the judge did not answer.

    Args:
        reason (`str`):
            One of `REASONS`.
        message (`str`):
            What happened, for people.
        reply (`str`, *optional*):
            The failing reply, cut to 400 characters. Never a key, never image bytes.

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
    """The judge cannot work as it is set up: unknown model, wrong key, no endpoint there."""


def shorten(text: str, limit: int = MAX_REPLY_CHARS) -> str:
    """Cut `text` to `limit` characters, saying how much is left out.

    ```python
    >>> shorten("abcdefgh", 3)
    'abc… (5 more characters)'

    ```
    """
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters)"
