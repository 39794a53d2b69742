"""A training step cut into its parts, each timed forward and backward where it stands.

The parts of every block run in the model's order on the model's own tensors. Between two parts the
graph of gradients is cut: a part's inputs are new leaves, and the backward pass hands each leaf's
gradient to the part that made it. So the work is that of an uncut step, in the same order and with
the same state of the caches, and the losses and gradients are the same.

Bytes are those that a part cannot do without, each tensor moved once::

    forward     inputs + outputs + weights
    backward    gradients of outputs + inputs + weights + gradients of inputs and of weights

Legend: B batch, T tokens, H hidden, N query heads, K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.decoder import DecoderLM
from sharpen.models.functional import swiglu
from sharpen.models.rope import apply_rope
from sharpen.train.loss import linear_cross_entropy

__all__ = ["PARTS", "Cost", "run_segments"]

PARTS = (
    *("embedding", "norms", "qkv", "rope", "attention", "output"),
    *("gate and up", "swiglu", "down", "residual", "head and loss"),
)
"""Parts of a step, in the order of a table."""


@dataclass(slots=True)
class Cost:
    """What a part took in one step, over all blocks."""

    calls: int = 0
    """Times it ran."""

    forward_s: float = 0.0
    """Seconds forward."""

    backward_s: float = 0.0
    """Seconds backward."""

    forward_bytes: int = 0
    """Bytes that must move, forward."""

    backward_bytes: int = 0
    """Bytes that must move, backward."""


@dataclass(slots=True)
class _Record:
    part: str
    leaves: list[Tensor]
    sources: list[Tensor]
    outputs: list[Tensor]
    weights: list[Tensor]


@dataclass(slots=True)
class _Tape:
    """Runs parts and remembers how they hang together."""

    costs: dict[str, Cost]
    records: list[_Record] = field(default_factory=list)

    def run(
        self,
        part: str,
        function: Callable[..., Tensor | tuple[Tensor, ...]],
        inputs: Sequence[Tensor],
        weights: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """``function(*inputs)`` as one part."""
        leaves = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        begin = time.perf_counter()
        made = function(*leaves)
        cost = self.costs[part]
        cost.forward_s += time.perf_counter() - begin
        outputs = [made] if isinstance(made, Tensor) else list(made)
        cost.calls += 1
        cost.forward_bytes += _bytes(*leaves, *outputs) + _moved(weights, outputs[0])
        self.records.append(_Record(part, leaves, list(inputs), outputs, list(weights)))
        return outputs

    def backward(self) -> None:
        """From the last part's only output back to the first part."""
        grads: dict[int, Tensor] = {}
        (loss,) = self.records[-1].outputs
        grads[id(loss)] = torch.ones_like(loss)
        while self.records:
            record = self.records.pop()
            pairs = [(x, grads.pop(id(x))) for x in record.outputs if id(x) in grads]
            pairs = [(x, grad) for x, grad in pairs if x.requires_grad]
            if not pairs:
                continue
            cost = self.costs[record.part]
            begin = time.perf_counter()
            torch.autograd.backward([x for x, _ in pairs], [grad for _, grad in pairs])
            cost.backward_s += time.perf_counter() - begin
            trained = [w for w in record.weights if w.requires_grad]
            taken = [leaf.grad for leaf in record.leaves if leaf.grad is not None]
            cost.backward_bytes += _bytes(*(grad for _, grad in pairs), *record.leaves, *taken)
            cost.backward_bytes += _moved(record.weights, pairs[0][0]) + _bytes(*trained)
            for leaf, source in zip(record.leaves, record.sources, strict=True):
                if leaf.grad is None:
                    continue
                before = grads.get(id(source))
                begin = time.perf_counter()
                grads[id(source)] = leaf.grad if before is None else before + leaf.grad
                self.costs["residual"].backward_s += time.perf_counter() - begin


def _bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _moved(weights: Sequence[Tensor], output: Tensor) -> int:
    """Bytes of weights in the type of the products."""
    return sum(w.numel() * min(w.element_size(), output.element_size()) for w in weights)


@contextmanager
def _autocast(dtype: torch.dtype) -> Iterator[None]:
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        yield


def run_segments(
    model: DecoderLM, batch: dict[str, Tensor], *, dtype: torch.dtype, tile: int
) -> tuple[Tensor, dict[str, Cost]]:
    """Forward and backward pass of one micro-batch on the CPU, part by part.

    Gradients are added to the parameters', as an uncut step adds them.

    Args:
        model: in training mode, with whole rows and nothing computed again.
        batch: ``input_ids``, ``position_ids``, ``document_ids`` and ``shift_labels``, [B, T] int64.
        dtype: compute type; another than float32 runs under autocast.
        tile: rows of logits held at once.

    Returns:
        The mean loss over the labels, and the cost of each of :data:`PARTS`.
    """
    costs = {part: Cost() for part in PARTS}
    tape = _Tape(costs)
    scale = 1.0 / max(1, int((batch["shift_labels"] != -100).sum()))
    with _autocast(dtype):
        ids = batch["input_ids"]
        embedding = model.model.embed_tokens

        def embed() -> Tensor:
            x: Tensor = embedding(ids)
            return x if dtype == torch.float32 else x.to(dtype)

        (x,) = tape.run("embedding", embed, [])
        costs["embedding"].forward_bytes += _bytes(x)  # the rows that are read, not the table
        context = model._context(ids, batch["position_ids"], batch["document_ids"], None, x.dtype)
        blocks: Iterable[Any] = model.model.layers
        for block in blocks:
            attention, mlp = block.self_attn, block.mlp
            heads = (*ids.shape, -1, attention.head_dim)

            def qkv(
                x: Tensor, at: Any = attention, to: tuple[int, ...] = heads
            ) -> tuple[Tensor, ...]:
                q, k, v = at.q_proj(x).view(to), at.k_proj(x).view(to), at.v_proj(x).view(to)
                if at.q_norm is not None and at.k_norm is not None:
                    q, k = at.q_norm(q), at.k_norm(k)
                return q, k, v

            def rope(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
                return tuple(apply_rope(y, context.cos, context.sin) for y in (q, k))

            def attend(q: Tensor, k: Tensor, v: Tensor, at: Any = attention) -> Tensor:
                out: Tensor = at.attend(q, k, v, context)
                return out

            norm = block.input_layernorm
            (normed,) = tape.run("norms", norm, [x], list(norm.parameters()))
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            q, k, v = tape.run("qkv", qkv, [normed], _weights(*projections))
            q, k = tape.run("rope", rope, [q, k])
            (y,) = tape.run("attention", attend, [q, k, v])
            (y,) = tape.run("output", attention.merge, [y], _weights(attention.o_proj))
            (x,) = tape.run("residual", torch.add, [x, y])
            norm = block.post_attention_layernorm
            if norm is not None:  # a parallel block's MLP reads what attention reads
                (normed,) = tape.run("norms", norm, [x], list(norm.parameters()))

            def gate_up(x: Tensor, at: Any = mlp) -> tuple[Tensor, ...]:
                return at.gate_proj(x), at.up_proj(x)

            wide = _weights(mlp.gate_proj, mlp.up_proj)
            gate, up = tape.run("gate and up", gate_up, [normed], wide)
            (y,) = tape.run("swiglu", swiglu, [gate, up])
            (y,) = tape.run("down", mlp.down_proj, [y], _weights(mlp.down_proj))
            (x,) = tape.run("residual", torch.add, [x, y])
        norm = model.model.norm
        (x,) = tape.run("norms", norm, [x], list(norm.parameters()))

    def head(x: Tensor) -> Tensor:
        return linear_cross_entropy(
            x.to(dtype), model.lm_head.weight, batch["shift_labels"], scale=scale, tile=tile
        )

    (loss,) = tape.run("head and loss", head, [x], [model.lm_head.weight])
    tape.backward()
    if embedding.weight.requires_grad:  # its gradient is dense
        costs["embedding"].backward_bytes += _bytes(embedding.weight)
    return loss.detach(), costs


def _weights(*layers: nn.Module) -> list[Tensor]:
    """Quantized layers keep theirs in buffers."""
    return [w for layer in layers for w in (*layer.parameters(), *layer.buffers())]
