"""GPTQ for rows of 4 and 8 bits: each column's rounding error is made good by those that follow.

Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: accurate post-training quantization for generative
pre-trained transformers", 2022, arXiv 2210.17323, algorithm 1; reordering and clipping as in Zheng
et al., "MixLLM", 2024, arXiv 2412.14590. For inputs X [T, K] of a layer::

    H = 2/T X^T X                   float64; H_jj = 1 where a column is dead (0)
    H <- H + 0.01 mean(diag H) I
    U^T U = H^-1                    U upper triangular
    for each group of 128 columns, by falling sum of diag H, its scale from w as it now is:
        for each column j in it:    e = (w_j - quant(w_j)) / U_jj
                                    w_k <- w_k - e U_jk        k > j in the group
        w_k <- w_k - sum_j e_j U_jk                            k in later groups

Whole groups change places, so columns of a group stay neighbours with one scale. Clipping: for
each row and group the grid's range is shrunk by r = 1.00, 0.98 .. 0.80, and the r is kept that has
the least (w_q - w)^T H_g (w_q - w), H_g the group's block of H. If the rows of one width then have
a larger summed error under the whole H than unclipped ones, they go back to r = 1. The search is
on the weights as given, before the loop.

Differs from the paper: the weights of dead columns are rounded, not zeroed; and a row whose error
on the calibration inputs is not below that of rounding to nearest takes the latter, so GPTQ never
loses there.

Memory: 3 K^2 float64 for H and its factor, O(N K) for a weight. Time: O(K^3 + N K^2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.compress.rows import (
    GROUP,
    RowCodes,
    checked,
    encode,
    grouped,
    parameters,
    quantize_rows,
)
from sharpen.core.errors import DataError

__all__ = ["Hessian", "clip_ratios", "gptq", "row_errors"]

_DAMPING = 0.01
_RATIOS = tuple(1.0 - 0.02 * step for step in range(11))


class Hessian:
    """Second moments of a layer's inputs.

    Args:
        columns: K, the layer's inputs.
        device: where they are kept.

    Attributes:
        tokens: rows of inputs so far.
        magnitude: [K] float64, the sum of |x| over them.
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        self.tokens = 0
        self.magnitude = torch.zeros(columns, dtype=torch.float64, device=device)
        self._sum = torch.zeros(columns, columns, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        """Take in inputs, [..., K]."""
        rows = x.detach().reshape(-1, self._sum.shape[0]).double()
        self._sum.addmm_(rows.T, rows)
        self.magnitude += rows.abs().sum(0)
        self.tokens += rows.shape[0]

    @property
    def matrix(self) -> Tensor:
        """2/T X^T X, [K, K] float64.

        Raises:
            DataError: no inputs yet, or NaN or infinity among them.
        """
        if self.tokens == 0:
            raise DataError("GPTQ has seen no inputs of this layer; give it calibration texts.")
        matrix = self._sum * (2.0 / self.tokens)
        if not bool(torch.isfinite(matrix.diagonal()).all()):
            raise DataError("the calibration inputs of a layer hold NaN or infinity.")
        return matrix

    def factor(self) -> Factor:
        """What :func:`gptq` takes."""
        return Factor.of(self.matrix)


@dataclass(frozen=True, slots=True)
class Factor:
    """A Hessian ready for GPTQ; columns are filled up to whole groups."""

    matrix: Tensor
    """[K, K] float64, without damping."""

    order: Tensor
    """[G] int64: groups by falling sums of the diagonal."""

    upper: Tensor
    """[128 G, 128 G] float32: U, rows and columns in that order of groups."""

    blocks: Tensor
    """[G, 128, 128] float32: the diagonal blocks, groups in their own order."""

    @classmethod
    def of(cls, matrix: Tensor) -> Self:
        """From H [K, K] float64."""
        columns = matrix.shape[0]
        extra = -columns % GROUP
        padded = F.pad(matrix, (0, extra, 0, extra))
        groups = padded.shape[0] // GROUP
        diagonal = padded.diagonal().view(groups, GROUP)
        order = diagonal.sum(1).argsort(descending=True, stable=True)
        places = torch.arange(groups, device=matrix.device)
        blocks = padded.view(groups, GROUP, groups, GROUP)[places, :, places].float()
        permutation = torch.arange(padded.shape[0], device=matrix.device).view(groups, GROUP)
        permutation = permutation[order].flatten()
        damped = padded[permutation][:, permutation]
        spread = damped.diagonal()
        mean = float(matrix.diagonal().mean())
        spread.masked_fill_(spread == 0, 1.0)
        spread += _DAMPING * mean
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        upper = torch.linalg.cholesky(inverse, upper=True)
        return cls(matrix, order, upper.float(), blocks)


def gptq(
    weight: Tensor,
    factor: Factor,
    eight: Tensor,
    *,
    clip: bool = True,
    where: str = "the weight",
) -> RowCodes:
    """Quantize a weight so that its outputs on the calibration inputs change little.

    Args:
        weight: [N, K], any float type; computed in float32.
        factor: of the inputs' Hessian.
        eight: [N] bool, the rows with 8 bits.
        clip: search ranges below the full one.
        where: the weight's name, for messages.

    Returns:
        Codes whose error :func:`row_errors` is in no row above that of rounding to nearest.

    Raises:
        DataError: NaN or infinity in the weight, or values too large for bfloat16 scales.
    """
    weight = checked(weight, where)
    groups = grouped(weight)
    ratios = groups.new_ones(groups.shape[:2])
    if clip:
        ratios = clip_ratios(weight, factor, eight)
    found = _columns_in_turn(groups, factor, ratios, eight, weight.shape[1])
    plain = quantize_rows(weight, eight, where=where)
    better = row_errors(found, weight, factor.matrix) < row_errors(plain, weight, factor.matrix)
    by_row = better[:, None]
    return RowCodes(
        torch.where(by_row, found.values, plain.values),
        torch.where(by_row, found.scale, plain.scale),
        torch.where(by_row, found.zero, plain.zero),
        eight,
    )


def row_errors(codes: RowCodes, weight: Tensor, matrix: Tensor) -> Tensor:
    """(w_q - w)^T H (w_q - w) of each row, [N] float64.

    Args:
        codes: of ``weight``.
        weight: [N, K].
        matrix: H, [K, K] float64.
    """
    change = (codes.dequantized() - weight.float()).double()
    return ((change @ matrix) * change).sum(1)


def clip_ratios(weight: Tensor, factor: Factor, eight: Tensor) -> Tensor:
    """How far to shrink each row's range in each group, [N, G] from 0.8 to 1.

    Args:
        weight: [N, K] float32.
        factor: of the inputs' Hessian.
        eight: [N] bool, the rows with 8 bits.
    """
    groups = grouped(weight)
    best = torch.ones(groups.shape[:2], device=weight.device)
    least = torch.full_like(best, torch.inf)
    for ratio in _RATIOS:
        scale, zero = parameters(groups, eight, ratio)
        codes = encode(groups, scale[..., None], zero[..., None], eight)
        change = ((codes - zero[..., None]) * scale[..., None] - groups).transpose(0, 1)
        error = ((change @ factor.blocks) * change).sum(-1).T
        better = error < least
        best[better] = ratio
        least = torch.where(better, error, least)
    errors = []
    for ratios in (torch.ones_like(best), best):
        scale, zero = parameters(groups, eight, ratios)
        codes = _codes(encode(groups, scale[..., None], zero[..., None], eight), weight.shape[1])
        errors.append(row_errors(RowCodes(codes, scale, zero, eight), weight, factor.matrix))
    for rows in (eight, ~eight):
        if float(errors[1][rows].sum()) > float(errors[0][rows].sum()):
            best[rows] = 1.0
    return best


def _columns_in_turn(
    groups: Tensor, factor: Factor, ratios: Tensor, eight: Tensor, columns: int
) -> RowCodes:
    """The loop of algorithm 1, groups in the factor's order."""
    order, upper = factor.order.tolist(), factor.upper
    left = groups[:, factor.order].flatten(1)
    codes, scale, zero = torch.empty_like(groups), torch.ones_like(ratios), torch.ones_like(ratios)
    for place, group in enumerate(order):
        begin, end = place * GROUP, (place + 1) * GROUP
        inner = upper[begin:end, begin:end].contiguous()
        one = slice(group, group + 1)
        scale[:, one], zero[:, one] = parameters(left[:, None, begin:end], eight, ratios[:, one])
        s, z = scale[:, group], zero[:, group]
        # Columns as rows: each is then contiguous.
        work = left[:, begin:end].T.contiguous()
        errors = torch.empty_like(work)
        for j in range(GROUP):
            column = work[j]
            q = encode(column, s, z, eight)
            codes[:, group, j] = q
            errors[j] = (column - (q - z) * s) / inner[j, j]
            if j + 1 < GROUP:
                work[j + 1 :].addr_(inner[j, j + 1 :], errors[j], alpha=-1)
        left[:, end:].addmm_(errors.T, upper[begin:end, end:], alpha=-1)
    return RowCodes(_codes(codes, columns), scale, zero, eight)


def _codes(groups: Tensor, columns: int) -> Tensor:
    return groups.flatten(1)[:, :columns].to(torch.int16)
