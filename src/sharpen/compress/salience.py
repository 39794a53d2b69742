"""How much each output feature of a model's linear layers would cost at 4 bits.

Zheng et al., "MixLLM: LLM quantization with global mixed-precision between output-features and
highly-efficient system design", 2024, arXiv 2412.14590. For row o of a weight, rounded to nearest
at 4 bits, and the gradient g of one sample's loss L (mean over its predicted tokens)::

    delta_o = w_q,o - w_o
    p_o     = g_o . delta_o                     whole rows: first order of L
    S_o     = sum over samples |p_o + p_o^2 / 2|    second order by the empirical Fisher matrix

The absolute value is taken for each sample, so that signs do not cancel over samples. Gradients of
weights are never formed; with X the layer's inputs and dY the gradient of its outputs,

    p_o = sum over tokens dY_to (X delta^T)_to          the same number as (dY^T X)_o . delta_o

Differs from the paper: that rearrangement; embedding and head are never chosen.

Memory beside the model: the inputs of all blocks for 4 samples, and one block's activations and
deltas. Time: about 4 forward passes a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.compress.calibration import Sample
from sharpen.compress.rows import quantize_rows
from sharpen.core.errors import DataError
from sharpen.data.shards import IGNORE
from sharpen.models.decoder import DecoderLM
from sharpen.models.tile_sizes import logits_tile

__all__ = ["block_linears", "row_salience"]

_AT_ONCE = 4


def block_linears(model: DecoderLM) -> dict[str, nn.Linear]:
    """The linear layers in the model's blocks, by name, in order."""
    return {
        f"model.layers.{i}.{name}": layer
        for i, block in enumerate(model.model.layers)
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear)
    }


def row_salience(
    model: DecoderLM,
    rows: Iterable[Sample],
    *,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Tensor]:
    """Score S of every row of every linear layer in the blocks.

    Args:
        model: in full precision, adapters folded in; not changed.
        rows: calibration samples; those without a label are left out.
        on_progress: is told of each finished sample.

    Returns:
        [N] float64, at least 0, by the layer's name.

    Raises:
        DataError: no sample has a label, or a loss is not a number.
    """
    linears = block_linears(model)
    device = model.model.norm.weight.device
    scores = {
        name: torch.zeros(layer.out_features, dtype=torch.float64, device=device)
        for name, layer in linears.items()
    }
    seen = 0
    with _frozen(model):
        for batch in _batches(rows):
            traces = [_trace(model, sample) for sample in batch]
            for number in range(len(model.model.layers) - 1, -1, -1):
                prefix = f"model.layers.{number}."
                inside = {n: layer for n, layer in linears.items() if n.startswith(prefix)}
                deltas = {name: _delta(name, layer) for name, layer in inside.items()}
                for trace in traces:
                    trace.through(model.model.layers[number], number, inside, deltas, scores)
            seen += len(traces)
            if on_progress is not None:
                on_progress(len(traces))
    if seen == 0:
        raise DataError("no calibration sample has a token to predict; give it longer texts.")
    return scores


def _batches(rows: Iterable[Sample]) -> Iterator[list[Sample]]:
    learned = (row for row in rows if bool((row.labels != IGNORE).any()))
    while batch := list(islice(learned, _AT_ONCE)):
        yield batch


def _delta(name: str, layer: nn.Linear) -> Tensor:
    weight = layer.weight.detach()
    four = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
    return quantize_rows(weight, four, where=name).dequantized() - weight.float()


@contextmanager
def _frozen(model: DecoderLM) -> Iterator[None]:
    """Evaluation mode, and no parameter asks for a gradient."""
    training = model.training
    asked = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
        model.train(training)


class _Trace:
    """One sample on its way back through the model.

    Args:
        inputs: arguments of each block.
        gradient: [1, T, H], of the loss with respect to the last block's output.
    """

    def __init__(self, inputs: list[tuple[Tensor, Any]], gradient: Tensor) -> None:
        self._inputs = inputs
        self._gradient = gradient

    def through(
        self,
        block: nn.Module,
        number: int,
        linears: Mapping[str, nn.Linear],
        deltas: Mapping[str, Tensor],
        scores: Mapping[str, Tensor],
    ) -> None:
        """Take one block's share of the scores; the gradient becomes that of its input."""
        hidden, context = self._inputs[number]
        with torch.enable_grad(), _watching(linears, deltas, scores):
            x = hidden.detach().requires_grad_()
            block(x, context).backward(self._gradient)
        assert x.grad is not None
        self._gradient = x.grad


@contextmanager
def _watching(
    linears: Mapping[str, nn.Linear], deltas: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> Iterator[None]:
    """Add |p + p^2 / 2| of each row to ``scores`` when a layer's output gets its gradient."""

    def watch(name: str) -> Any:
        delta, score = deltas[name], scores[name]

        def forward(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            x = arguments[0].detach().reshape(-1, delta.shape[1]).float()

            def backward(gradient: Tensor) -> None:
                change = gradient.reshape(-1, delta.shape[0]).float() * (x @ delta.T)
                p = change.double().sum(0)
                score.add_((p + p.square() / 2).abs())

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in linears.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _trace(model: DecoderLM, sample: Sample) -> _Trace:
    """The blocks' inputs, and the loss's gradient at the end of the last block."""
    caught: list[tuple[Tensor, Any]] = []
    last: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments: caught.append(arguments))
        for layer in model.model.layers
    ]
    hooks.append(model.model.norm.register_forward_pre_hook(lambda _, given: last.append(given[0])))
    try:
        with torch.no_grad():
            model.hidden(
                sample.input_ids,
                position_ids=sample.position_ids,
                document_ids=sample.document_ids,
            )
    finally:
        for hook in hooks:
            hook.remove()
    hidden, labels = last[0], sample.labels
    gradient = torch.zeros_like(hidden)
    count = int((labels != IGNORE).sum())
    tile = logits_tile(model.spec.vocab_size)
    for begin in range(0, hidden.shape[1], tile):
        part = slice(begin, begin + tile)
        with torch.enable_grad():
            x = hidden[:, part].detach().requires_grad_()
            logits = model.lm_head(model.model.norm(x)).float().flatten(0, 1)
            targets = labels[:, part].flatten()
            loss = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / count
            if not bool(torch.isfinite(loss)):
                raise DataError("the loss of a calibration sample is not a number.")
            loss.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        gradient[:, part] = x.grad
    return _Trace(caught, gradient)
