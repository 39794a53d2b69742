"""One decoder language model for the Llama, Mistral, Qwen2 and Qwen3 layouts.

A block, pre-norm with grouped-query attention and a gated MLP (Touvron et al., 2023)::

    x' = x + O(attention(rope(Q(norm(x))), rope(K(norm(x))), V(norm(x))))
    x'' = x' + down(silu(gate(norm(x'))) * up(norm(x')))

A parallel block has one norm for both, which then need not wait for each other (Chowdhery et al.,
PaLM, 2022, section 2; Jiang et al., MegaScale, 2024, arXiv 2402.15627, section 3.1)::

    y = norm(x)
    x' = x + O(attention(rope(Q(y)), rope(K(y)), V(y))) + down(silu(gate(y)) * up(y))

Parameters carry Hugging Face's names. Families differ in biases (Qwen2: on q, k, v), per-head norms
of queries and keys (Qwen3) and sliding windows (Mistral, Qwen2). Packed rows hold several
documents; attention never leaves a document.

Legend: B batch, T tokens, S keys, H hidden, N query heads, K key/value heads, D head size, V
vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec, RopeScaling
from sharpen.models.attention import (
    Documents,
    SequenceContext,
    ShardedAttention,
    attention_mask,
    document_attention,
    document_lengths,
)
from sharpen.models.functional import rms_norm, swiglu
from sharpen.models.kv_cache import KVCache
from sharpen.models.linear import Linear
from sharpen.models.rope import Rope, apply_rope
from sharpen.models.tile_sizes import mlp_tile
from sharpen.models.tiled import sequence_tiled, tiled_mlp

__all__ = ["ActivationStore", "DecoderLM"]


class ActivationStore(Protocol):
    """Takes what is kept for the backward pass elsewhere, and brings it back in time."""

    def unit(self, number: int) -> AbstractContextManager[None]:
        """Around the forward pass of one of the units, which are passed in growing order."""


@dataclass(frozen=True, slots=True)
class _Context:
    """What every block needs and no block changes."""

    cos: Tensor
    """[B, T, 1, D/2]"""
    sin: Tensor
    documents: Documents | None
    """Of the flattened batch; None when every row is one document."""
    mask: Tensor | None
    """[B or 1, 1, T, S] bool, for full attention; None when causal or nothing is masked."""
    window_mask: Tensor | None
    """The same for layers with a sliding window."""
    is_causal: bool
    """Plain causal attention without a mask."""
    cache: KVCache | None
    sharded: ShardedAttention | None = None
    """Of rows that lie on several ranks; nothing else then matters to attention."""
    mlp_tile: int = 0
    """Tokens that an MLP takes at a time; 0 for all."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension (Zhang & Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Any shape [..., size]."""
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = spec.head_dim
        self.heads = spec.num_heads, spec.num_kv_heads
        self.window = spec.sliding_window if spec.slides(layer) else None
        self.q_proj = Linear(spec.hidden_size, spec.query_size, bias=spec.qkv_bias)
        self.k_proj = Linear(spec.hidden_size, spec.kv_size, bias=spec.qkv_bias)
        self.v_proj = Linear(spec.hidden_size, spec.kv_size, bias=spec.qkv_bias)
        self.o_proj = Linear(spec.query_size, spec.hidden_size, bias=spec.output_bias)
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if spec.qk_norm:
            self.q_norm = RMSNorm(spec.head_dim, spec.rms_norm_eps)
            self.k_norm = RMSNorm(spec.head_dim, spec.rms_norm_eps)

    def forward(self, x: Tensor, context: _Context) -> Tensor:
        """[B, T, H] -> [B, T, H]."""
        return self.merge(self.attend(*self.project(x, context), context))

    def project(self, x: Tensor, context: _Context) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, T, N, D] and keys, turned by their positions, and values [B, T, K, D]."""
        heads = (*x.shape[:2], -1, self.head_dim)
        q, k, v = self.q_proj(x).view(heads), self.k_proj(x).view(heads), self.v_proj(x).view(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q = apply_rope(q, context.cos, context.sin)
        return q, apply_rope(k, context.cos, context.sin), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: _Context) -> Tensor:
        """[B, T, N, D] from what :meth:`project` returns."""
        if context.sharded is not None:
            return context.sharded(q, k, v, window=self.window)
        if context.documents is not None:
            return document_attention(q, k, v, context.documents, self.window)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if context.cache is not None:
            k, v = context.cache.put(self.layer, k, v)
        mask = context.mask if self.window is None else context.window_mask
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=context.is_causal and mask is None,
            enable_gqa=True,
        ).transpose(1, 2)

    def merge(self, heads: Tensor) -> Tensor:
        """[B, T, H] from the output of all heads, [B, T, N, D]."""
        projected: Tensor = self.o_proj(heads.reshape(*heads.shape[:2], -1))
        return projected


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, GLU variants, 2020)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        hidden, width = spec.hidden_size, spec.intermediate_size
        self.gate_proj = Linear(hidden, width, bias=spec.mlp_bias)
        self.up_proj = Linear(hidden, width, bias=spec.mlp_bias)
        self.down_proj = Linear(width, hidden, bias=spec.mlp_bias)

    def forward(self, x: Tensor, tile: int = 0) -> Tensor:
        """[B, T, H] -> [B, T, H]; with a ``tile``, over so many tokens at a time."""
        if not tile:
            projected: Tensor = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))
            return projected
        layers = self.gate_proj, self.up_proj, self.down_proj
        if all(isinstance(layer, nn.Linear) for layer in layers):
            gate, up, down = (layer.weight for layer in layers)
            biases = self.gate_proj.bias, self.up_proj.bias, self.down_proj.bias
            return tiled_mlp(x, gate, up, down, tile=tile, biases=biases)
        rows = x.reshape(-1, x.shape[-1])  # adapters, or weights in few bits
        return sequence_tiled(self.forward, rows, tile=tile).view(x.shape)


class Block(nn.Module):
    """One layer."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.self_attn = Attention(spec, layer)
        self.post_attention_layernorm: RMSNorm | None = None
        if spec.block == "serial":
            self.post_attention_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, context: _Context, selective: bool = False) -> Tensor:
        """[B, T, H] -> [B, T, H].

        ``selective`` keeps only the input and what the attention kernel needs for the backward
        pass; all around the kernel is computed again.
        """
        if context.sharded is not None and context.sharded.chunked:
            heads = self._attend_in_chunks(x, context.sharded, context)
        elif selective:
            q, k, v = checkpoint(self._before, x, context, use_reentrant=False)
            heads = self.self_attn.attend(q, k, v, context)
        else:
            normed = self.input_layernorm(x)
            q, k, v = self.self_attn.project(normed, context)
            return self._after(x, self.self_attn.attend(q, k, v, context), context, normed)
        if not selective:
            return self._after(x, heads, context)
        out: Tensor = checkpoint(self._after, x, heads, context, use_reentrant=False)
        return out

    def _attend_in_chunks(
        self, x: Tensor, attention: ShardedAttention, context: _Context
    ) -> Tensor:
        """[B, T, N, D]; norm and projections are computed again, a chunk at a time."""

        def project(part: Tensor, at: slice) -> tuple[Tensor, Tensor, Tensor]:
            cos, sin = context.cos[:, at], context.sin[:, at]
            return self._before(part, dataclasses.replace(context, cos=cos, sin=sin))

        layer = self.self_attn
        return attention.projected(x, project, layer.heads, window=layer.window)

    def _before(self, x: Tensor, context: _Context) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.project(self.input_layernorm(x), context)

    def _after(
        self, x: Tensor, heads: Tensor, context: _Context, normed: Tensor | None = None
    ) -> Tensor:
        """What follows attention; ``normed`` is what went into it, where that is at hand."""
        attended = x + self.self_attn.merge(heads)
        if self.post_attention_layernorm is not None:
            normed = self.post_attention_layernorm(attended)
        elif normed is None:
            normed = self.input_layernorm(x)
        out: Tensor = attended + self.mlp(normed, context.mlp_tile)
        return out


class Decoder(nn.Module):
    """Embedding, blocks and final norm: everything but the head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Block(spec, i) for i in range(spec.num_layers))
        self.norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)


class DecoderLM(nn.Module):
    """A causal language model.

    Args:
        spec: its shape.

    Attributes:
        checkpointing: what a block keeps for the backward pass of a training: all, or only its
            input (``"full"``), or that and what attention needs (``"selective"``).
        checkpoint_every: every n-th block does; the others keep all.
        mlp_tile: tokens that an MLP takes at a time in a training, see
            :mod:`sharpen.models.tiled`; 0 for all, ``"auto"`` for a good number.
        offload: where what checkpointing keeps waits for the backward pass; None for where it is.
        sequence: the ranks that share each row, and what they know of the batch; the model then
            takes this rank's tokens only. None for whole rows.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.checkpointing: Literal["none", "selective", "full"] = "none"
        self.checkpoint_every = 1
        self.mlp_tile: int | Literal["auto"] = 0
        self.offload: ActivationStore | None = None
        self.sequence: SequenceContext | None = None
        self.model = Decoder(spec)
        self.lm_head = Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._rope = Rope(spec)

    def extend_context(self, tokens: int) -> None:
        """Stretch the rotary positions to a longer context (YaRN), ready to be trained on.

        Peng et al., 2023 (arXiv 2309.00071): wavelengths that the pre-training has not seen whole
        are stretched by ``tokens / max_positions``, short ones stay. Saved with the model.

        Args:
            tokens: the new context; nothing changes when the model's is as long.

        Raises:
            ConfigError: the positions are stretched already.
        """
        spec = self.spec
        if tokens <= spec.max_positions:
            return
        if spec.rope_scaling is not None:
            raise ConfigError(
                f"the model's context is stretched already ({spec.rope_scaling.kind}, to "
                f"{spec.max_positions} tokens). Take its base model, or a context within that."
            )
        scaling = RopeScaling(
            kind="yarn",
            factor=tokens / spec.max_positions,
            original_max_positions=spec.max_positions,
        )
        self.spec = dataclasses.replace(spec, max_positions=tokens, rope_scaling=scaling)
        self._rope = Rope(self.spec)

    def init_weights(self, seed: int, std: float = 0.02) -> None:
        """Random weights for training from scratch: normal matrices, unit norms, zero biases.

        Projections back into the residual stream are scaled by 1 / sqrt(2 L) (Radford et al.,
        GPT-2, 2019).
        """
        generator = torch.Generator().manual_seed(seed)
        residual = std / (2 * self.spec.num_layers) ** 0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.ndim == 1:
                    parameter.fill_(1.0)
                else:
                    back = name.endswith(("o_proj.weight", "down_proj.weight"))
                    parameter.normal_(0.0, residual if back else std, generator=generator)

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        logits_to_keep: int | None = None,
    ) -> Tensor:
        """Logits of the next token.

        Args:
            input_ids: [B, T] int64.
            position_ids: [B, T] int64; default 0..T-1, or what follows the cache.
            document_ids: [B, T] int64, equal within a document; rows then hold several documents
                and attention stays within each. Not together with ``cache``.
            cache: keys and values so far; extended in place.
            logits_to_keep: only the last so many positions; default all.

        Returns:
            [B, T', V] in the weights' type (the autocast type under autocast).
        """
        hidden = self.hidden(
            input_ids, position_ids=position_ids, document_ids=document_ids, cache=cache
        )
        if logits_to_keep is not None:
            hidden = hidden[:, -logits_to_keep:]
        logits: Tensor = self.lm_head(hidden)
        return logits

    def new_cache(self, batch: int, *, capacity: int, starts: Tensor | None = None) -> KVCache:
        """An empty cache for ``batch`` rows, in the type and on the device of the final norm.

        Args:
            batch: number of rows.
            capacity: positions to reserve.
            starts: [B] int64, padding positions on the left of each row; None for none.
        """
        weight = self.model.norm.weight  # the embedding may be quantized
        if starts is not None:
            starts = starts.to(weight.device)
        return KVCache(
            self.spec,
            batch,
            capacity=capacity,
            dtype=weight.dtype,
            device=weight.device,
            starts=starts,
        )

    def hidden(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        follows: Sequence[int | None] | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states [B, T, H] after the final norm; other arguments as for :meth:`forward`.

        ``follows`` says for each document which earlier one it goes on from, see
        :class:`~sharpen.models.attention.Documents`; ``position_ids`` go on as well.
        """
        x = self.model.embed_tokens(input_ids)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        context = self._context(input_ids, position_ids, document_ids, cache, x.dtype, follows)
        trains = self.training and torch.is_grad_enabled()
        if trains and self.mlp_tile:
            tile = mlp_tile(self.mlp_tile, self.spec.hidden_size, input_ids.numel())
            context = dataclasses.replace(context, mlp_tile=tile)
        for number, block in enumerate(self.model.layers):
            if trains and self.checkpointing != "none" and number % self.checkpoint_every == 0:
                x = self._checkpointed(block, number, x, context)
            else:
                x = block(x, context)
        if cache is not None:
            cache.advance(input_ids.shape[1])
        hidden: Tensor = self.model.norm(x)
        return hidden

    def _checkpointed(self, block: nn.Module, number: int, x: Tensor, context: _Context) -> Tensor:
        with nullcontext() if self.offload is None else self.offload.unit(number):
            stored = context.sharded is not None and context.sharded.stored
            if self.checkpointing == "selective" or stored:
                out: Tensor = block(x, context, selective=True)
            else:
                out = checkpoint(block, x, context, use_reentrant=False)
        return out

    def _context(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        document_ids: Tensor | None,
        cache: KVCache | None,
        dtype: torch.dtype,
        follows: Sequence[int | None] | None = None,
    ) -> _Context:
        if self.sequence is not None:
            if follows is not None:
                raise ConfigError(
                    "documents that go on from others need whole rows on every rank: leave "
                    "parallel.sp and parallel.ring at 1."
                )
            if cache is not None:
                raise ConfigError(
                    "a model whose rows are sharded over ranks cannot decode with a cache. Take "
                    "them off first: model.sequence = None."
                )
            sharded = self.sequence.attention(input_ids.shape)
            positions = self.sequence.positions if position_ids is None else position_ids
            cos, sin = self._rope(positions, self.sequence.longest, dtype)
            return _Context(cos, sin, None, None, None, False, None, sharded)
        num_tokens, device = input_ids.shape[1], input_ids.device
        past = cache.length if cache is not None else 0
        total = past + num_tokens
        starts = cache.starts if cache is not None else None
        if position_ids is None:
            position_ids = torch.arange(past, total, device=device)[None].expand(input_ids.shape)
            if starts is not None:
                position_ids = (position_ids - starts[:, None]).clamp(min=0)
            longest = total
        else:
            longest = int(position_ids.max()) + 1 if position_ids.numel() else 1
        cos, sin = self._rope(position_ids, longest, dtype)
        if cache is not None:
            cache.reserve(num_tokens)
        lengths = document_lengths(document_ids) if document_ids is not None else None
        documents = None if lengths is None else Documents(lengths, follows)
        mask = window_mask = None
        is_causal = num_tokens > 1 or past == 0
        if documents is None:
            window = self.spec.sliding_window
            if starts is not None or (past > 0 and num_tokens > 1):
                mask = attention_mask(past, num_tokens, starts, None, device)
            window_mask = mask
            if window is not None and total > window:
                window_mask = attention_mask(past, num_tokens, starts, window, device)
        return _Context(cos, sin, documents, mask, window_mask, is_causal, cache)
