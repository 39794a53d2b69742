"""Sequence parallelism for ``transformers`` models: switched on, and off again.

``transformers`` looks up a model's attention by name in a table. :func:`enable` puts one entry for
the model into that table and names it in the model's config; :func:`disable` takes both back. Its
entry in the table of masks builds none: what a token sees follows from the context. Give the model
what :func:`~sharpen.train.sp.shard.shard_sequence` returns, with its ``position_ids``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sharpen.core.errors import ConfigError, DependencyNotInstalled
from sharpen.train.sp.shard import SPContext

__all__ = ["disable", "enable"]

_PREFIX = "sharpen_sequence"
_BEFORE = "_attention_before_sharpen"


def enable(model: nn.Module, ctx: SPContext) -> None:
    """Let a model's attention go over the ranks that share its rows.

    Args:
        model: a ``transformers`` decoder that takes its attention from the table of
            ``transformers.AttentionInterface`` (Llama, Mistral, Qwen and most others).
        ctx: the ranks.

    Raises:
        ConfigError: the model is none of these, or is enabled already.
        DependencyNotInstalled: ``transformers`` is not installed.
    """
    attention, mask = _tables()
    config: Any = getattr(model, "config", None)
    if config is None or not getattr(model, "_can_set_attn_implementation", bool)():
        raise ConfigError(
            f"{type(model).__name__} is no transformers model whose attention can be exchanged. "
            "For a sharpen model set model.sequence = ctx."
        )
    if hasattr(model, _BEFORE):
        raise ConfigError("the model runs over a context already: call disable(model) first.")
    name = f"{_PREFIX}_{id(model)}"
    attention.register(name, _Attention(ctx))
    mask.register(name, _no_mask)
    setattr(model, _BEFORE, config._attn_implementation)
    config._attn_implementation = name


def disable(model: nn.Module) -> None:
    """Undo :func:`enable`: the model has its former attention and takes whole rows.

    Raises:
        ConfigError: it is not enabled.
    """
    if not hasattr(model, _BEFORE):
        raise ConfigError("the model runs over no context: there is nothing to disable.")
    config: Any = model.config
    name = config._attn_implementation
    config._attn_implementation = getattr(model, _BEFORE)
    delattr(model, _BEFORE)
    for table in _tables():
        table._global_mapping.pop(name, None)


def _tables() -> tuple[Any, Any]:
    """Of attention functions and of mask functions."""
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        raise DependencyNotInstalled(
            "sequence parallelism of transformers models needs the package 'transformers'. "
            "Install it: pip install transformers"
        ) from error
    return AttentionInterface, AttentionMaskInterface


def _no_mask(*, attention_mask: Tensor | None = None, **unused: Any) -> None:
    """An entry of the table of masks."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise ConfigError(
            "the model was given an attention_mask that hides tokens. Give it to shard_sequence, "
            "which turns it into documents, and give the model what that returns."
        )


class _Attention:
    """An entry of the table of attention functions."""

    def __init__(self, ctx: SPContext) -> None:
        self._ctx = ctx

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        is_causal: bool | None = None,
        **unused: Any,
    ) -> tuple[Tensor, None]:
        """[B, T, N, D] from [B, heads, T, D]."""
        if dropout:
            raise ConfigError(
                f"attention dropout of {dropout} is not supported over several ranks. Set the "
                "model's config.attention_dropout to 0."
            )
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        attention = self._ctx.attention(q.shape[:2])
        return attention(q, k, v, causal=causal, window=sliding_window, scale=scaling), None
