"""What judging needs to know about other ranks: how many there are, and how long they wait."""

import sys
from typing import Any


def world_size() -> int:
    """Number of training processes; 1 without a process group."""
    distributed = _distributed()
    return 1 if distributed is None else distributed.get_world_size()


def is_first_rank() -> bool:
    """Whether this is the main process."""
    distributed = _distributed()
    return distributed is None or distributed.get_rank() == 0


def batch_deadline(seconds: float) -> float:
    """`seconds`, but at most 0.45 of the process group's timeout, if there is a group.

    The other ranks wait for a slow one in a collective, and its timeout aborts the whole job.
    """
    timeout = process_group_timeout()
    return seconds if timeout is None else min(seconds, 0.45 * timeout)


def process_group_timeout() -> float | None:
    """Seconds until a collective of the default process group gives up; `None` without a group."""
    distributed = _distributed()
    if distributed is None:
        return None
    group = distributed.group.WORLD
    backends = [group._get_backend(device) for device in group._device_types]
    known = [backend.options._timeout for backend in backends if hasattr(backend, "options")]
    return min((timeout.total_seconds() for timeout in known), default=None)


def _distributed() -> Any:
    torch = sys.modules.get("torch")  # no torch, no group; and torch is slow to import
    if torch is None or not torch.distributed.is_available():
        return None
    return torch.distributed if torch.distributed.is_initialized() else None
