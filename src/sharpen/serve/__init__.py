"""Calling and serving language models; names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.serve.async_engine import AsyncEngine
    from sharpen.serve.engine import Engine
    from sharpen.serve.grammar import Grammar
    from sharpen.serve.llm import LLM, Completion, EmbeddingOutput, RequestOutput
    from sharpen.serve.monitor import (
        DriftReport,
        Monitor,
        MonitorConfig,
        Signal,
        check_prompts,
        compare,
    )
    from sharpen.serve.reference import Reference, make_reference, read_prompts
    from sharpen.serve.request import Piece, TokenLogprob
    from sharpen.serve.sampling import SamplingParams

__all__ = [
    "LLM",
    "AsyncEngine",
    "Completion",
    "DriftReport",
    "EmbeddingOutput",
    "Engine",
    "Grammar",
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

__getattr__ = exports(
    __name__,
    {
        "AsyncEngine": "sharpen.serve.async_engine",
        "Completion": "sharpen.serve.llm",
        "DriftReport": "sharpen.serve.monitor",
        "EmbeddingOutput": "sharpen.serve.llm",
        "Engine": "sharpen.serve.engine",
        "Grammar": "sharpen.serve.grammar",
        "LLM": "sharpen.serve.llm",
        "Monitor": "sharpen.serve.monitor",
        "MonitorConfig": "sharpen.serve.monitor",
        "Piece": "sharpen.serve.request",
        "Reference": "sharpen.serve.reference",
        "RequestOutput": "sharpen.serve.llm",
        "SamplingParams": "sharpen.serve.sampling",
        "Signal": "sharpen.serve.monitor",
        "TokenLogprob": "sharpen.serve.request",
        "check_prompts": "sharpen.serve.monitor",
        "compare": "sharpen.serve.monitor",
        "make_reference": "sharpen.serve.reference",
        "read_prompts": "sharpen.serve.reference",
    },
)
