"""Warnings of libraries that nobody who runs trl-balcap can act on, each with its reason."""

import logging
import warnings

__all__ = ["hush"]

_MESSAGES = (
    # TRL asks transformers by names that transformers 5 has renamed and still knows.
    r"`(is_)?gradient_checkpointing(_enable|_disable)?` is deprecated",
    # torch's data loader on a machine without a GPU, where pinning does nothing.
    r"'pin_memory' argument is set as true but no accelerator is found",
    # A typed dict of litellm's that pydantic cannot hold to.
    r"Item '\w+' on TypedDict class '\w+' is using the `ReadOnly` qualifier",
)
# DeepSpeed says on import that there is no GPU; it is imported where it is installed, used or not.
_DEEPSPEED = "Setting accelerator to CPU"


def hush() -> None:
    """
    Leave out the warnings above in this process: for scripts and the command line, not for
    libraries.

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
    logging.getLogger("DeepSpeed").addFilter(_can_be_acted_on)


def _can_be_acted_on(record: logging.LogRecord) -> bool:
    return _DEEPSPEED not in record.getMessage()
