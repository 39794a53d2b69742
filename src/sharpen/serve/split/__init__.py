"""Prompts on some workers, next tokens on others: engine, records, routes, router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.serve.split.engine import SplitEngine, SplitLLM
    from sharpen.serve.split.router import RouterLLM
    from sharpen.serve.split.server import WorkerServer

__all__ = ["RouterLLM", "SplitEngine", "SplitLLM", "WorkerServer"]

__getattr__ = exports(
    __name__,
    {
        "RouterLLM": "sharpen.serve.split.router",
        "SplitEngine": "sharpen.serve.split.engine",
        "SplitLLM": "sharpen.serve.split.engine",
        "WorkerServer": "sharpen.serve.split.server",
    },
)
