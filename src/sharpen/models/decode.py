"""A decoder prepared for inference: the same function as ``DecoderLM`` in fewer, faster operations.

A decoding step reads every weight once and does little else, so it is bound by memory bandwidth
and, for small models, by the number of operations. For each block, with R = B T rows::

    qkv = [Wq; Wk; Wv] norm(x)                       one product, weights laid end to end
    q, k <- rope: y = x * cos + roll(x, D/2) * sin'  sin' = (-sin, sin): three operations
    x <- x + Wo attention(q, k, v)
    g, u = [Wg; Wu] norm(x)                          one product
    x <- x + Wd (silu(g) * u)

In a step of one token the G query heads that share a key head are one attention of G rows, so keys
are not repeated. Products on CPUs, by type and rows:

    bfloat16          oneDNN, weights reordered once into its blocked layout (AMX, AVX512-BF16)
    float32, 1 row    a plain matrix-vector product, which already runs at memory speed
    float32, 2 to 16  oneDNN on a second, blocked copy of the weights, made when first needed
    float32, more     a plain matrix product

Weights are moved into huge pages: streaming them through 4 KiB pages can halve the speed.
Elsewhere, and for quantized layers, the layers' own ``forward``. Weights move here and are not
copied, except as said and for a bfloat16 head tied to the embedding (V H e bytes).

Legend: B batch, T tokens, R rows, S keys, H hidden, N query heads, K key heads, G = N / K, D head
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.core.huge_pages import collapse
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import Attention, Block, DecoderLM, attention_mask
from sharpen.models.kv_cache import KVCache
from sharpen.models.rope import Rope

__all__ = ["InferenceLM", "prepare_for_inference"]

_ROWS_HINT = 8  # the blocked layout oneDNN picks for it is good from 1 row to hundreds
_MAX_FEW_ROWS = 16
_SHORT_CONTEXT = 2048  # up to here one token attends by plain products

_Product = Callable[[Tensor], Tensor]


class _Blocked:
    """[R, in] -> [R, out] with a weight in oneDNN's own layout."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_HINT)
        self._bias = bias
        self._linear: Any = torch.ops.mkldnn._linear_pointwise.default
        address = int(torch.ops.mkldnn.data_ptr(self._weight))
        collapse([(address, int(torch.ops.mkldnn._nbytes(self._weight)))])

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._linear(x, self._weight, self._bias, "none", [], "")
        return y


class _Float32:
    """[R, in] -> [R, out] in float32; a blocked copy of the weight serves 2 to 16 rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias
        self._blocked: _Blocked | None = None
        collapse([(weight.data_ptr(), weight.nbytes)])

    def __call__(self, x: Tensor) -> Tensor:
        if not 1 < x.shape[0] <= _MAX_FEW_ROWS:
            return F.linear(x, self._weight, self._bias)
        if self._blocked is None:
            self._blocked = _Blocked(self._weight, self._bias)
        return self._blocked(x)


class _Layers:
    """One or several layers on the same input, called as they are; outputs end to end."""

    def __init__(self, *layers: nn.Module) -> None:
        self._layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        outputs = [layer(x) for layer in self._layers]
        return torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]


def _product(*layers: nn.Module) -> _Product:
    """The fastest product for ``layers``, which share their input."""
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    if len(linear) < len(layers) or not _can_block(linear[0].weight):
        return _Layers(*layers)
    biases = [bias for layer in linear if (bias := getattr(layer, "bias", None)) is not None]
    if 0 < len(biases) < len(linear):
        return _Layers(*layers)
    weight = _end_to_end([layer.weight for layer in linear])
    bias = _end_to_end(biases) if biases else None
    return (_Float32 if weight.dtype == torch.float32 else _Blocked)(weight, bias)


def _end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach() for t in tensors]) if len(tensors) > 1 else tensors[0].detach()


def _can_block(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _attend_one(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for one token: [K, G, D], [K, S, D] -> [K, G, D].

    Three small products start sooner than the fused kernel, whose threads must meet.
    """
    scale = q.shape[-1] ** -0.5
    scores = torch.baddbmm(q.new_empty(()), q, keys.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), values)


@dataclass(frozen=True, slots=True)
class _Step:
    """What every block needs in one call."""

    batch: int
    num_tokens: int
    cos: Tensor
    """[B or 1, T, 1, D]"""
    sin: Tensor
    """[B or 1, T, 1, D]: the first half negated."""
    mask: Tensor | None
    """[B or 1, 1, T, S], added to the scores; None when nothing is masked or causal is enough."""
    window_mask: Tensor | None
    """The same for layers with a sliding window."""
    is_causal: bool
    cache: KVCache


class _Block:
    """One layer; takes the weights out of ``block``."""

    def __init__(self, spec: ModelSpec, block: Block, layer: int) -> None:
        attention: Attention = block.self_attn
        mlp = block.mlp
        self._spec = spec
        self._layer = layer
        self._slides = attention.window is not None
        self._input_norm = block.input_layernorm.weight.detach()
        self._mlp_norm = block.post_attention_layernorm.weight.detach()
        self._q_norm = self._k_norm = None
        if attention.q_norm is not None and attention.k_norm is not None:
            self._q_norm = attention.q_norm.weight.detach()
            self._k_norm = attention.k_norm.weight.detach()
        self._qkv = _product(attention.q_proj, attention.k_proj, attention.v_proj)
        self._o = _product(attention.o_proj)
        self._gate_up = _product(mlp.gate_proj, mlp.up_proj)
        self._down = _product(mlp.down_proj)
        del block.self_attn, block.mlp

    def __call__(self, x: Tensor, step: _Step) -> Tensor:
        """[R, H] -> [R, H]."""
        attended = self._attention(self._qkv(self._norm(x, self._input_norm)), step)
        x = x + self._o(attended)
        gate, up = self._gate_up(self._norm(x, self._mlp_norm)).chunk(2, -1)
        return x + self._down(F.silu(gate) * up)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return F.rms_norm(x, weight.shape, weight, self._spec.rms_norm_eps)
        # Torch's own takes twice as many operations, which is what counts for one row.
        mean = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(mean.add_(self._spec.rms_norm_eps)) * weight

    def _attention(self, qkv: Tensor, step: _Step) -> Tensor:
        """[R, (N + 2 K) D] -> [R, N D]."""
        spec = self._spec
        heads, kv_heads, size = spec.num_heads, spec.num_kv_heads, spec.head_dim
        qkv = qkv.view(step.batch, step.num_tokens, -1, size)
        qk, v = qkv[:, :, : heads + kv_heads], qkv[:, :, heads + kv_heads :]
        if self._q_norm is not None and self._k_norm is not None:
            q, k = torch.split(qk, [heads, kv_heads], dim=2)
            qk = torch.cat((self._norm(q, self._q_norm), self._norm(k, self._k_norm)), dim=2)
        qk = torch.addcmul(qk * step.cos, qk.roll(size // 2, -1), step.sin)
        q, k = torch.split(qk, [heads, kv_heads], dim=2)
        keys, values = step.cache.put(self._layer, k.transpose(1, 2), v.transpose(1, 2))
        mask = step.window_mask if self._slides else step.mask
        if step.num_tokens == 1:
            grouped = q.reshape(step.batch, kv_heads, heads // kv_heads, size)
            if step.batch == 1 and mask is None and keys.shape[2] <= _SHORT_CONTEXT:
                return _attend_one(grouped[0], keys[0], values[0]).view(1, heads * size)
            out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
            return out.reshape(step.batch, heads * size)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            attn_mask=mask,
            is_causal=step.is_causal and mask is None,
            enable_gqa=True,
        )
        return out.transpose(1, 2).reshape(step.batch * step.num_tokens, heads * size)


class InferenceLM:
    """A causal language model for decoding; made by :func:`prepare_for_inference`.

    Attributes:
        spec: its shape.
    """

    def __init__(self, model: DecoderLM) -> None:
        self.spec = model.spec
        self._embedding = model.model.embed_tokens
        self._norm = model.model.norm
        self._head = _product(model.lm_head)
        blocks = [block for block in model.model.layers if isinstance(block, Block)]
        self._blocks = [_Block(model.spec, block, i) for i, block in enumerate(blocks)]
        self._rope = Rope(model.spec)
        self._dtype = self._norm.weight.dtype

    def __call__(
        self,
        input_ids: Tensor,
        *,
        cache: KVCache | None = None,
        logits_to_keep: int | None = None,
    ) -> Tensor:
        """Logits of the next token; arguments as for :meth:`DecoderLM.forward`.

        Returns:
            [B, T', V] in the weights' type; no gradients flow.
        """
        batch, num_tokens = input_ids.shape
        with torch.inference_mode():
            if cache is None:
                cache = self.new_cache(batch, capacity=num_tokens)
            step = self._step(input_ids, cache)
            x = self._embedding(input_ids).view(batch * num_tokens, -1)
            for block in self._blocks:
                x = block(x, step)
            cache.advance(num_tokens)
            x = x.view(batch, num_tokens, -1)
            if logits_to_keep is not None:
                x = x[:, -logits_to_keep:]
            kept = x.shape[1]
            x = self._norm(x).reshape(batch * kept, -1)
            return self._head(x).view(batch, kept, -1)

    def new_cache(self, batch: int, *, capacity: int, starts: Tensor | None = None) -> KVCache:
        """An empty cache; as :meth:`DecoderLM.new_cache`."""
        weight = self._norm.weight
        return KVCache(
            self.spec,
            batch,
            capacity=capacity,
            dtype=weight.dtype,
            device=weight.device,
            starts=starts.to(weight.device) if starts is not None else None,
        )

    def _step(self, input_ids: Tensor, cache: KVCache) -> _Step:
        batch, num_tokens = input_ids.shape
        device, past, starts = input_ids.device, cache.length, cache.starts
        total = past + num_tokens
        positions = torch.arange(past, total, device=device)[None]
        if starts is not None:
            positions = (positions - starts[:, None]).clamp_(min=0)
        cos, sin = self._rope(positions, total, self._dtype)
        cache.reserve(num_tokens)
        mask = window_mask = None
        if starts is not None or (past > 0 and num_tokens > 1):
            mask = self._added(attention_mask(past, num_tokens, starts, None, device))
        window = self.spec.sliding_window
        window_mask = mask
        if window is not None and total > window:
            window_mask = self._added(attention_mask(past, num_tokens, starts, window, device))
        return _Step(
            batch=batch,
            num_tokens=num_tokens,
            cos=torch.cat((cos, cos), -1),
            sin=torch.cat((-sin, sin), -1),
            mask=mask,
            window_mask=window_mask,
            is_causal=num_tokens > 1,
            cache=cache,
        )

    def _added(self, seen: Tensor) -> Tensor:
        """A mask to add to scores: 0 where ``seen``, else minus infinity."""
        added = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        return added.masked_fill_(~seen, float("-inf"))


def prepare_for_inference(model: DecoderLM) -> InferenceLM:
    """Make a model ready for decoding.

    Args:
        model: used up: its layers' weights move into the result, so memory does not double.

    Returns:
        A model with equal logits, up to rounding.
    """
    return InferenceLM(model.eval())
