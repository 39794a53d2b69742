"""Language models to call: an OpenAI-compatible server, one in this process, a script, a record.

Cached, metered, kept within budgets. Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.core.lm.backends import open_engine, scheme_names
    from sharpen.core.lm.budget import Budget, Spent
    from sharpen.core.lm.cache import CachedEngine, CacheStats, ReplyCache, default_cache
    from sharpen.core.lm.cassettes import CassetteEngine
    from sharpen.core.lm.client import LM
    from sharpen.core.lm.errors import (
        AccessError,
        BudgetExhausted,
        CassetteMiss,
        ReplyError,
        RequestError,
        ServiceError,
        UnexpectedPrompt,
    )
    from sharpen.core.lm.http import OpenAIEngine
    from sharpen.core.lm.messages import (
        ChatRequest,
        ChatResponse,
        Engine,
        Message,
        ThreadedEngine,
        Usage,
    )
    from sharpen.core.lm.meter import Meter, MeteredEngine, Totals
    from sharpen.core.lm.prices import Price, Prices
    from sharpen.core.lm.repair import find_json
    from sharpen.core.lm.scripted import Scripted
    from sharpen.core.lm.structured import Schema, ask

_MODULES = {
    "LM": "client",
    "AccessError": "errors",
    "Budget": "budget",
    "BudgetExhausted": "errors",
    "CacheStats": "cache",
    "CachedEngine": "cache",
    "CassetteEngine": "cassettes",
    "CassetteMiss": "errors",
    "ChatRequest": "messages",
    "ChatResponse": "messages",
    "Engine": "messages",
    "Message": "messages",
    "Meter": "meter",
    "MeteredEngine": "meter",
    "OpenAIEngine": "http",
    "Price": "prices",
    "Prices": "prices",
    "ReplyCache": "cache",
    "ReplyError": "errors",
    "RequestError": "errors",
    "Schema": "structured",
    "Scripted": "scripted",
    "ServiceError": "errors",
    "Spent": "budget",
    "ThreadedEngine": "messages",
    "Totals": "meter",
    "UnexpectedPrompt": "errors",
    "Usage": "messages",
    "ask": "structured",
    "default_cache": "cache",
    "find_json": "repair",
    "open_engine": "backends",
    "scheme_names": "backends",
}

__all__ = [
    "LM",
    "AccessError",
    "Budget",
    "BudgetExhausted",
    "CacheStats",
    "CachedEngine",
    "CassetteEngine",
    "CassetteMiss",
    "ChatRequest",
    "ChatResponse",
    "Engine",
    "Message",
    "Meter",
    "MeteredEngine",
    "OpenAIEngine",
    "Price",
    "Prices",
    "ReplyCache",
    "ReplyError",
    "RequestError",
    "Schema",
    "Scripted",
    "ServiceError",
    "Spent",
    "ThreadedEngine",
    "Totals",
    "UnexpectedPrompt",
    "Usage",
    "ask",
    "default_cache",
    "find_json",
    "open_engine",
    "scheme_names",
]

__getattr__ = exports(
    "sharpen.core.lm", {name: f"sharpen.core.lm.{module}" for name, module in _MODULES.items()}
)
