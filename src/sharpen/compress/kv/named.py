"""Policies by name, as the command line and ``LLM`` take them."""

from __future__ import annotations

from pathlib import Path

from sharpen.compress.kv.h2o import H2OPolicy
from sharpen.compress.kv.knorm import KnormPolicy
from sharpen.compress.kv.locret import LocretPolicy, RetainingHeads, load_heads
from sharpen.compress.kv.plan import EvictionConfig
from sharpen.compress.kv.policy import KVPolicy
from sharpen.compress.kv.snapkv import SnapKVPolicy
from sharpen.compress.kv.window import SinksPolicy, WindowPolicy
from sharpen.core.errors import ConfigError
from sharpen.models.decoder import DecoderLM

__all__ = ["UNTRAINED", "locret_policy", "named_policy"]

_SINKS = 4

UNTRAINED: dict[str, type[KVPolicy]] = {
    policy.name: policy
    for policy in (WindowPolicy, SinksPolicy, H2OPolicy, SnapKVPolicy, KnormPolicy)
}


def named_policy(
    name: str,
    model: DecoderLM,
    *,
    budget: int | None = None,
    locret_heads: str | Path | None = None,
) -> KVPolicy | None:
    """A policy with its defaults.

    Args:
        name: ``full``, ``window``, ``sinks``, ``h2o``, ``snapkv``, ``knorm`` or ``locret``.
        model: that it is to serve.
        budget: units each head keeps; default 6000.
        locret_heads: folder of trained heads, for ``locret`` alone.

    Returns:
        None for ``full``.

    Raises:
        ConfigError: no such name, the options do not fit it, or the model cannot be served.
        MissingFileError: there are no heads in the folder.
    """
    if name not in ("full", "locret", *UNTRAINED):
        raise ConfigError(
            f"kv_policy={name!r} must be full, {', '.join(UNTRAINED)} or locret, or a KVPolicy."
        )
    if (name == "locret") != (locret_heads is not None):
        raise ConfigError(
            "kv_policy='locret' and locret_heads, the folder of its trained heads, go together. "
            "Train heads: sharpen compress locret train."
        )
    if name == "full":
        if budget is not None:
            raise ConfigError(
                f"kv_budget={budget} needs a kv_policy that drops units: "
                f"{', '.join(UNTRAINED)} or locret."
            )
        return None
    config = EvictionConfig() if budget is None else EvictionConfig(budget=budget)
    policy: KVPolicy
    if locret_heads is not None:
        weight = model.model.norm.weight
        heads = load_heads(locret_heads, model.spec, device=weight.device)
        heads.check_model(model)
        policy = locret_policy(heads, config)
    else:
        policy = UNTRAINED[name](config)
    policy.check(model.spec)
    return policy


def locret_policy(heads: RetainingHeads, config: EvictionConfig) -> LocretPolicy:
    """What ``locret`` names: trained scores, and the first four tokens always, where they fit.

    Without those, heads trained on hundreds of texts instead of thousands lose them in some layers,
    at a high price (``benchmarks/compress/bench_locret.py``).
    """
    room = config.budget - config.num_stabilizers
    return LocretPolicy(heads, config, sinks=min(_SINKS, room))
