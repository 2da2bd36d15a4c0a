"""A stand-in with vLLM's interface, which notes what our side hands over."""

import sys
import types
from typing import Any

import pytest


@pytest.fixture
def vllm(monkeypatch) -> dict[str, Any]:
    """What the engine was started with ("options"), and what it was asked last."""
    seen: dict[str, Any] = {}

    class LLM:
        def __init__(self, **options):
            seen["options"] = options

        def chat(self, conversations, sampling, lora_request, use_tqdm):
            seen.update(conversations=conversations, sampling=sampling, lora=lora_request)
            output = types.SimpleNamespace(text=" A red square. ")
            return [types.SimpleNamespace(outputs=[output]) for _ in conversations]

    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, lambda **options: options  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    requests = types.ModuleType("vllm.lora.request")
    requests.LoRARequest = lambda *parts: parts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.lora", types.ModuleType("vllm.lora"))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", requests)
    return seen
