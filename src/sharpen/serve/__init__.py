"""Calling and serving language models; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharpen.serve.engine import Engine, Piece, TokenLogprob
    from sharpen.serve.llm import LLM, Completion, RequestOutput
    from sharpen.serve.monitor import (
        DriftReport,
        Monitor,
        MonitorConfig,
        Signal,
        check_prompts,
        compare,
    )
    from sharpen.serve.reference import Reference, make_reference, read_prompts
    from sharpen.serve.sampling import SamplingParams

_EXPORTS = {
    "LLM": "llm",
    "Completion": "llm",
    "DriftReport": "monitor",
    "Engine": "engine",
    "Monitor": "monitor",
    "MonitorConfig": "monitor",
    "Piece": "engine",
    "Reference": "reference",
    "RequestOutput": "llm",
    "SamplingParams": "sampling",
    "Signal": "monitor",
    "TokenLogprob": "engine",
    "check_prompts": "monitor",
    "compare": "monitor",
    "make_reference": "reference",
    "read_prompts": "reference",
}

__all__ = [
    "LLM",
    "Completion",
    "DriftReport",
    "Engine",
    "Monitor",
    "MonitorConfig",
    "Piece",
    "Reference",
    "RequestOutput",
    "SamplingParams",
    "Signal",
    "TokenLogprob",
    "check_prompts",
    "compare",
    "make_reference",
    "read_prompts",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"sharpen.serve.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'sharpen.serve' has no attribute {name!r}")
