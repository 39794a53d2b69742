"""What stays in the KV cache: policies that drop keys and values, trained (Locret) and not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.compress.kv.h2o import H2OPolicy
    from sharpen.compress.kv.knorm import KnormPolicy
    from sharpen.compress.kv.locret import LocretPolicy, RetainingHeads, load_heads, save_heads
    from sharpen.compress.kv.locret_training import (
        AnsweredText,
        LocretConfig,
        make_heads,
        train_heads,
    )
    from sharpen.compress.kv.plan import EvictionConfig, EvictionPlan
    from sharpen.compress.kv.policy import KVPolicy, select
    from sharpen.compress.kv.retention import Retention
    from sharpen.compress.kv.snapkv import SnapKVPolicy
    from sharpen.compress.kv.text import KeptText
    from sharpen.compress.kv.window import SinksPolicy, WindowPolicy

__all__ = [
    "AnsweredText",
    "EvictionConfig",
    "EvictionPlan",
    "H2OPolicy",
    "KVPolicy",
    "KeptText",
    "KnormPolicy",
    "LocretConfig",
    "LocretPolicy",
    "RetainingHeads",
    "Retention",
    "SinksPolicy",
    "SnapKVPolicy",
    "WindowPolicy",
    "load_heads",
    "make_heads",
    "save_heads",
    "select",
    "train_heads",
]

__getattr__ = exports(
    __name__,
    {
        "AnsweredText": "sharpen.compress.kv.locret_training",
        "EvictionConfig": "sharpen.compress.kv.plan",
        "EvictionPlan": "sharpen.compress.kv.plan",
        "H2OPolicy": "sharpen.compress.kv.h2o",
        "KVPolicy": "sharpen.compress.kv.policy",
        "KeptText": "sharpen.compress.kv.text",
        "KnormPolicy": "sharpen.compress.kv.knorm",
        "LocretConfig": "sharpen.compress.kv.locret_training",
        "LocretPolicy": "sharpen.compress.kv.locret",
        "RetainingHeads": "sharpen.compress.kv.locret",
        "Retention": "sharpen.compress.kv.retention",
        "SinksPolicy": "sharpen.compress.kv.window",
        "SnapKVPolicy": "sharpen.compress.kv.snapkv",
        "WindowPolicy": "sharpen.compress.kv.window",
        "load_heads": "sharpen.compress.kv.locret",
        "make_heads": "sharpen.compress.kv.locret_training",
        "save_heads": "sharpen.compress.kv.locret",
        "select": "sharpen.compress.kv.policy",
        "train_heads": "sharpen.compress.kv.locret_training",
    },
)
