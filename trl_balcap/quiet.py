"""Hides library warnings that users of trl-balcap cannot act on, each with the reason."""

import logging
import warnings

__all__ = ["hush"]

_MESSAGES = (
    # TRL uses names that transformers 5 has renamed but still supports.
    r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated",
    # From torch's data loader without a GPU, where pinning does nothing.
    r"'pin_memory' argument is set as true but no accelerator is found",
    # A TypedDict of litellm that pydantic cannot enforce.
    r"Item '\w+' on TypedDict class '\w+' is using the `ReadOnly` qualifier",
)
_LOGGED = {
    # On import, if it is installed, whether used or not.
    "DeepSpeed": ("Setting accelerator to CPU",),
    # Each retry of an unreachable Hub; the error that follows says it in one line.
    "huggingface_hub.utils._http": ("thrown while requesting", "Retrying in "),
}


def hush() -> None:
    """
    Hide the warnings above in this process. For scripts and the command line, not for libraries.

    Example:

    ```python
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     hush()
    ...     warnings.warn("`gradient_checkpointing` is deprecated", FutureWarning)
    ...     warnings.warn("`something_else` is deprecated", FutureWarning)
    >>> [str(warning.message) for warning in seen]
    ['`something_else` is deprecated']

    ```
    """
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)
    for name in _LOGGED:
        logging.getLogger(name).addFilter(_can_be_acted_on)


def _can_be_acted_on(record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in _LOGGED[record.name])
