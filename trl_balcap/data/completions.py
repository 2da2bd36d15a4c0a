"""The text of a completion, in any of the formats that trainers use."""

import unicodedata
from typing import Any

__all__ = ["completion_text", "is_empty", "user_text"]


def completion_text(completion: Any) -> str:
    """
    The text of a completion: a string, or a list of messages as TRL passes conversations.

    Args:
        completion (`str` or `list[dict]`):
            The completion. The text parts of the assistant's messages are joined, each message on
            its own line; tool output is not part of the caption.

    Returns:
        `str`: the text, which may be empty.

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


def user_text(prompt: Any) -> str:
    """
    The user's text in a prompt: a string, or a conversation as TRL passes it.

    ```python
    >>> content = [{"type": "image"}, {"type": "text", "text": "Describe the image."}]
    >>> user_text([{"role": "user", "content": content}])
    'Describe the image.'

    ```
    """
    if not isinstance(prompt, list):
        return prompt or ""
    said = (message for message in prompt if message.get("role") == "user")
    return completion_text([{**message, "role": "assistant"} for message in said])


def is_empty(text: str) -> bool:
    """Whether `text` has nothing visible: only space, control and format characters."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)
