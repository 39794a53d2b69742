"""Pruning: the least important weights become zero, without training.

Magnitude pruning drops the smallest weights of each matrix (Han et al., 2015, arXiv 1506.02626).
Wanda weighs each with what goes into it and compares within an output (Sun et al., 2023, arXiv
2306.11695, eq. 1 and algorithm 1)::

    score_ij = |W_ij| ||X_j||_2          X_j: input feature j of all calibration tokens
    zero the lowest share s of each row, or all but the n best of every m neighbours ("n:m")

Blocks are done in order, each on the outputs of those already pruned. Only the linear layers of
the blocks are pruned: embedding, head and norms stay whole.

Differs from the papers: None for Wanda; magnitudes are pruned once, without the retraining of Han
et al., as in Wanda's comparison.
Time: two forward passes of the calibration tokens. Memory: the hidden states of those tokens
beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.compress.calibration import Sample, samples
from sharpen.compress.config import PruneConfig
from sharpen.core.errors import ConfigError
from sharpen.data.shards import TokenDataset
from sharpen.eval.scoring import evaluating
from sharpen.models.decoder import DecoderLM

__all__ = ["first_inputs", "prune_mask", "prune_model", "zero_share"]


def prune_mask(
    score: Tensor, *, sparsity: float = 0.5, kept: tuple[int, int] | None = None, by_row: bool
) -> Tensor:
    """Which weights go; ties go from the left.

    Args:
        score: [out, in], at least 0.
        sparsity: share that goes.
        kept: (n, m): keep n of every m neighbours in a row instead.
        by_row: compare within each row, else in the whole matrix; of no effect with ``kept``.

    Returns:
        [out, in] bool, true where the weight is to be zero.

    Raises:
        ConfigError: m does not divide the inputs.

    Examples:
        >>> import torch
        >>> from sharpen.compress import prune_mask
        >>> score = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
        >>> prune_mask(score, kept=(2, 4), by_row=True).int().tolist()
        [[0, 1, 0, 1]]
    """
    rows, columns = score.shape
    if kept is not None:
        n, m = kept
        if columns % m:
            raise ConfigError(
                f"pattern {n}:{m} does not fit a layer with {columns} inputs: {m} must divide them."
            )
        groups, drop = score.reshape(-1, m), m - n
    else:
        groups = score if by_row else score.reshape(1, -1)
        drop = int(groups.shape[1] * sparsity)
    lowest = groups.sort(dim=1, stable=True).indices[:, :drop]
    mask = torch.zeros(groups.shape, dtype=torch.bool, device=score.device)
    return mask.scatter_(1, lowest, True).view(rows, columns)


def prune_model(
    model: DecoderLM,
    config: PruneConfig,
    dataset: TokenDataset | None = None,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Zero weights of the linear layers in the blocks of ``model``, in place.

    Args:
        model: in full precision, adapters folded in.
        config: which weights.
        dataset: split to calibrate on; only Wanda needs it.
        on_progress: is told of each finished block.

    Raises:
        ConfigError: Wanda without a data set, or a pattern that does not fit a layer.
        DataError: the data set is empty, or has tokens that the model does not know.
    """
    wanda = config.method == "wanda"
    if wanda and dataset is None:
        raise ConfigError(
            "prune method 'wanda' needs a data set to calibrate on. Put a 'data' stage before, or "
            "use method 'magnitude'."
        )
    kept = config.kept
    with evaluating(model):
        states: list[tuple[Tensor, Any]] = []
        if wanda and dataset is not None:
            states = first_inputs(model, samples(dataset, config.calibration, model))
        for block in model.model.layers:
            layers = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
            squares: dict[str, Tensor] = {}
            if wanda:
                with _input_squares(layers, squares):
                    for hidden, context in states:
                        block(hidden, context)
            for name, layer in layers.items():
                score = layer.weight.abs().float()
                if wanda:
                    score *= squares[name].sqrt().to(score.dtype)
                mask = prune_mask(score, sparsity=config.sparsity, kept=kept, by_row=wanda)
                layer.weight.data.masked_fill_(mask, 0)
            states = [(block(hidden, context), context) for hidden, context in states]
            if on_progress is not None:
                on_progress(1)


def zero_share(model: DecoderLM) -> float:
    """Share of zeros among the weights of the blocks' linear layers."""
    weights = [m.weight for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
    zeros = sum(w.numel() - int(torch.count_nonzero(w)) for w in weights)
    return zeros / max(1, sum(w.numel() for w in weights))


class _Enough(Exception):
    """Ends a forward pass at the first block."""


def first_inputs(model: DecoderLM, rows: Iterable[Sample]) -> list[tuple[Tensor, Any]]:
    """Arguments of the first block for each row."""
    caught: list[tuple[Tensor, Any]] = []

    def catch(module: nn.Module, arguments: tuple[Tensor, Any]) -> None:
        caught.append(arguments)
        raise _Enough

    hook = model.model.layers[0].register_forward_pre_hook(catch)
    try:
        for row in rows:
            try:
                model.hidden(
                    row.input_ids, position_ids=row.position_ids, document_ids=row.document_ids
                )
            except _Enough:
                continue
    finally:
        hook.remove()
    return caught


@contextmanager
def _input_squares(layers: dict[str, nn.Linear], squares: dict[str, Tensor]) -> Iterator[None]:
    """Collect the sum of squares of each input feature, [in] float64, while the block is open."""

    def watch(name: str, layer: nn.Linear) -> Any:
        squares[name] = torch.zeros(
            layer.in_features, dtype=torch.float64, device=layer.weight.device
        )

        def add(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            rows = arguments[0].reshape(-1, layer.in_features)
            squares[name] += rows.double().square().sum(0)

        return layer.register_forward_pre_hook(add)

    hooks = [watch(name, layer) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
