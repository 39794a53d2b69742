"""MixLLM: the output features that matter most get 8 bits, over the whole model; all others 4.

Zheng, Song and Liu, "MixLLM: LLM quantization with global mixed-precision between output-features
and highly-efficient system design", 2024, arXiv 2412.14590::

    S_o       salience of row o, over all layers    compress/salience.py
    8 bits    the share (bits - 4) / 4 of rows with the largest S, whatever their layers
    weights   GPTQ for both kinds of rows           compress/gptq.py
    product   integers, activations of 8 bits       compress/mixed.py

With ``unit="bytes"`` the share is one of the bytes that 8 bits for all rows would add, and rows are
taken by falling S for each byte; a row that no longer fits is passed over. The result is within the
worth of one row of the best choice under that budget.

Blocks are quantized in order, each on the outputs of those already quantized.

Differs from the paper: 4 and 8 bits only; the choice by bytes; solvers for comparison.

Memory: the model, the hidden states of the calibration rows, one block's Hessians.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sharpen.compress.awq import input_groups, scale_inputs
from sharpen.compress.config import MixLLMConfig
from sharpen.compress.gptq import Factor, Hessian, clip_ratios, gptq
from sharpen.compress.mixed import MixedWeight
from sharpen.compress.rows import RowCodes, checked, encode, grouped, parameters, row_bytes

__all__ = ["Concentration", "choose_rows", "concentration", "quantize_block"]

States = list[tuple[Tensor, Any]]
"""Arguments of a block for each calibration row."""


def choose_rows(
    scores: Mapping[str, Tensor],
    columns: Mapping[str, int],
    share: float,
    *,
    unit: Literal["rows", "bytes"] = "rows",
) -> dict[str, Tensor]:
    """The rows that get 8 bits.

    Args:
        scores: [N] of each layer, larger is more important.
        columns: K of each layer.
        share: of rows, or of the bytes that 8 bits for all would add; 0 to 1.
        unit: what the share counts.

    Returns:
        [N] bool of each layer. By rows, round(share N) are true over all layers; by bytes, as many
        as fit. Equal scores go to earlier layers and rows.

    Examples:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([2.0, 4.0])}
        >>> chosen = choose_rows(scores, {"a": 128, "b": 128}, 0.5)
        >>> {name: rows.tolist() for name, rows in chosen.items()}
        {'a': [True, False], 'b': [False, True]}
    """
    sizes = [scores[name].numel() for name in scores]
    values = torch.cat([score.double().cpu() for score in scores.values()])
    extra = torch.cat(
        [
            torch.full((size,), row_bytes(columns[name])[1] - row_bytes(columns[name])[0])
            for name, size in zip(scores, sizes, strict=True)
        ]
    )
    chosen = torch.zeros(values.numel(), dtype=torch.bool)
    if unit == "rows":
        order = values.argsort(descending=True, stable=True)
        chosen[order[: int(share * values.numel() + 0.5)]] = True
    else:
        order = (values / extra).argsort(descending=True, stable=True)
        _fill_budget(chosen, order, extra, int(share * int(extra.sum())))
    return dict(zip(scores, torch.split(chosen, sizes), strict=True))


@dataclass(frozen=True, slots=True)
class Concentration:
    """Where the rows that matter most are; kinds are such as ``down_proj``."""

    held: float
    """Their share of all salience, 0 to 1."""

    share_of_kind: dict[str, float]
    """How many of a kind's rows they are, 0 to 1."""

    share_of_layer: dict[str, float]
    """The same by layer."""

    rows_of_kind: dict[str, int]
    """All rows of a kind."""

    salience_of_kind: dict[str, float]
    """Share of all salience in all rows of a kind, 0 to 1."""


def concentration(
    scores: Mapping[str, Tensor], columns: Mapping[str, int], share: float
) -> Concentration:
    """Where salience is.

    Args:
        scores: as for :func:`choose_rows`.
        columns: the same.
        share: of rows that count as those that matter most, 0 to 1.
    """
    chosen = choose_rows(scores, columns, share)
    kinds = {name: name.rpartition(".")[2] for name in scores}
    top = 0.0
    rows, rows_chosen = Counter[str](), Counter[str]()
    salience: dict[str, float] = dict.fromkeys(kinds.values(), 0.0)
    for name, kind in kinds.items():
        score = scores[name].double().cpu()
        rows[kind] += score.numel()
        rows_chosen[kind] += int(chosen[name].sum())
        salience[kind] += float(score.sum())
        top += float(score[chosen[name]].sum())
    total = sum(salience.values()) or 1.0
    return Concentration(
        held=top / total,
        share_of_kind={kind: rows_chosen[kind] / rows[kind] for kind in rows},
        share_of_layer={name: float(taken.double().mean()) for name, taken in chosen.items()},
        rows_of_kind=dict(rows),
        salience_of_kind={kind: value / total for kind, value in salience.items()},
    )


def _fill_budget(chosen: Tensor, order: Tensor, extra: Tensor, budget: int) -> None:
    """Take rows in order while they fit, and pass over those that do not."""
    left = budget
    while order.numel():
        fits = extra[order].cumsum(0) <= left
        taken = order[: int(fits.sum())]
        chosen[taken] = True
        left -= int(extra[taken].sum())
        order = order[taken.numel() :]
        order = order[extra[order] <= left]


def quantize_block(
    block: nn.Module,
    eight: Mapping[str, Tensor],
    config: MixLLMConfig,
    states: States,
    *,
    where: str,
) -> dict[str, Tensor]:
    """Quantize the linear layers of one block.

    Args:
        block: with ``awq`` its parameters get new values, with which it computes what it did.
        eight: [N] bool, the rows with 8 bits, by the layer's name within the block.
        config: solver and clipping.
        states: what goes into the block; needed unless the solver is ``rtn``.
        where: the block's name, for messages.

    Returns:
        The block's tensors as they are stored: packed weights, biases, norms.
    """
    groups = input_groups(block)
    hessians: dict[str, Hessian] = {}
    matrices: dict[str, Tensor] = {}
    if config.solver != "rtn":
        with _watching(block, groups, hessians):
            for hidden, context in states:
                block(hidden, context)
        if config.solver == "awq":
            matrices = scale_inputs(block, hessians, eight)
        else:
            matrices = {name: hessian.matrix for name, hessian in hessians.items()}
    stored: dict[str, Tensor] = {}
    for names in groups:
        factor = Factor.of(matrices[names[0]]) if matrices else None
        for name in names:
            weight = block.get_submodule(name).get_parameter("weight")
            codes = _codes(weight, eight[name], factor, config, f"{where}.{name}")
            stored |= {f"{name}.{k}": v for k, v in MixedWeight.of(codes).tensors().items()}
    packed = {f"{name}.weight" for names in groups for name in names}
    rest = {n: p.detach() for n, p in block.named_parameters() if n not in packed}
    return {**stored, **rest}


def _codes(
    weight: Tensor, eight: Tensor, factor: Factor | None, config: MixLLMConfig, where: str
) -> RowCodes:
    if factor is not None and config.solver == "gptq":
        return gptq(weight, factor, eight, clip=config.clip, where=where)
    weight = checked(weight, where)
    groups = grouped(weight)
    ratio = clip_ratios(weight, factor, eight) if factor is not None and config.clip else 1.0
    scale, zero = parameters(groups, eight, ratio)
    values = encode(groups, scale[..., None], zero[..., None], eight).flatten(1)
    return RowCodes(values[:, : weight.shape[1]].to(torch.int16), scale, zero, eight)


@contextmanager
def _watching(
    block: nn.Module, groups: list[list[str]], hessians: dict[str, Hessian]
) -> Iterator[None]:
    """Collect the second moments of each group's input, shared by its layers."""

    def watch(names: list[str]) -> Any:
        layer = block.get_submodule(names[0])
        weight = layer.get_parameter("weight")
        hessian = Hessian(weight.shape[1], weight.device)
        hessians.update(dict.fromkeys(names, hessian))

        def add(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            hessian.add(arguments[0])

        return layer.register_forward_pre_hook(add)

    hooks = [watch(names) for names in groups]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
