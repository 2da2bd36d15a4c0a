"""The text of a completion, in each form in which trainers pass it."""

import unicodedata
from typing import Any

__all__ = ["completion_text", "is_empty"]


def completion_text(completion: Any) -> str:
    """
    The text of a completion: a string, or a list of messages as TRL passes conversations.

    Args:
        completion (`str` or `list[dict]`):
            The completion. Of the assistant's messages the text parts are taken, those of several
            messages on lines of their own; what a tool said is none of the caption.

    Returns:
        `str`: the text, empty where there is none.

    Example:

    ```python
    >>> completion_text([{"role": "assistant", "content": "A red circle."}])
    'A red circle.'
    >>> completion_text([{"role": "assistant", "content": [{"type": "text", "text": "A star."}]}])
    'A star.'
    >>> completion_text([{"role": "tool", "content": "42"}, {"role": "assistant", "content": "A."}])
    'A.'

    ```
    """
    if isinstance(completion, str):
        return completion
    texts = []
    for message in completion:
        if message.get("role", "assistant") != "assistant":
            continue
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(part.get("text") or "" for part in content)
        texts.append(content)
    return "\n".join(texts)


def is_empty(text: str) -> bool:
    """Whether nothing in `text` can be seen: only space, control and format characters."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)
