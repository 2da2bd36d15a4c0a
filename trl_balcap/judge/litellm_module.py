"""litellm: imported late, and with unused work switched off."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import Any

LITELLM_ENVIRONMENT = {
    # Otherwise the import fetches a price table from the network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # For the openai provider, use litellm's own HTTP handler instead of the openai package: a third
    # less CPU per call (benchmarks/judge.py). Set it to "False" to go back.
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",
}
"""Environment variables set before litellm is imported, unless they are already set."""


@cache
def litellm_module() -> ModuleType:
    """litellm, imported at the first question because it takes seconds."""
    for name, value in LITELLM_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import litellm

    # litellm prints help for each error to stdout, with no per-call switch for it.
    litellm.suppress_debug_info = True
    return litellm


@cache
def register_scenes() -> None:
    """Register `scenes/oracle` as a litellm model."""
    from trl_balcap.scenes import provider

    provider.register()


@contextlib.contextmanager
def unobserved(model: str, messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Skip litellm's unused work per call: log records, and looking up the price.

    Together they are half of its CPU time. Yields extra arguments for `acompletion`. Nothing is
    skipped if litellm has a callback to serve, or is a release without these hooks.
    """
    litellm, internal_call, record = litellm_module(), _internal_call(), _unpriced_record()
    receivers = (
        litellm.callbacks,
        litellm.success_callback,
        litellm.failure_callback,
        litellm._async_success_callback,
        litellm._async_failure_callback,
    )
    if internal_call is None or record is None or any(receivers):
        yield {}
        return
    token = internal_call.set(True)
    try:
        yield {"litellm_logging_obj": record(model, messages)}
    finally:
        internal_call.reset(token)


@cache
def _internal_call() -> ContextVar[bool] | None:
    """litellm's marker for its own calls; not public, so it may disappear."""
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:
        return None
    return is_internal_call


@cache
def _unpriced_record() -> Callable[[str, list[dict[str, Any]]], Any] | None:
    """litellm's record of a call, without looking up its price, which `prices` does once."""
    try:
        from litellm.litellm_core_utils.litellm_logging import Logging
    except ImportError:
        return None

    class Unpriced(Logging):
        def response_cost_calculator(self, *args: Any, **kwargs: Any) -> None:
            return None

    def record(model: str, messages: list[dict[str, Any]]) -> Logging:
        return Unpriced(
            model=model,
            messages=messages,
            stream=False,
            call_type="acompletion",
            start_time=datetime.now(),
            litellm_call_id=str(uuid.uuid4()),
            function_id="",
        )

    return record
