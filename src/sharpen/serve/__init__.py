"""Calling and serving language models; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpen.serve.engine import Engine, Piece, TokenLogprob
    from sharpen.serve.llm import LLM, Completion, RequestOutput
    from sharpen.serve.sampling import SamplingParams

_EXPORTS = {
    "LLM": "llm",
    "Completion": "llm",
    "Engine": "engine",
    "Piece": "engine",
    "RequestOutput": "llm",
    "SamplingParams": "sampling",
    "TokenLogprob": "engine",
}

__all__ = [
    "LLM",
    "Completion",
    "Engine",
    "Piece",
    "RequestOutput",
    "SamplingParams",
    "TokenLogprob",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"sharpen.serve.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'sharpen.serve' has no attribute {name!r}")
