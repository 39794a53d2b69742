"""The nearest matrix with orthonormal rows or columns, by matrix products alone.

Keller Jordan et al., Muon, 2024 (kellerjordan.github.io/posts/muon): the quintic iteration::

    X <- X / ||X||_F         X <- a X + (b A + c A^2) X,  A = X X^T,  on the shorter side

whose coefficients are steep at 0, so that five rounds bring small singular values up; all end near
1, between 0.7 and 1.2. Amsel, Persson, Musco & Gower, The Polar Express, 2025 (arXiv 2505.16932):
other coefficients each round, optimal for singular values from 0.001, which converge to 1.

Differs from the papers: None. Memory: three matrices. Time: 4 s + 2 s^2 / L operations a weight and
round, for sides s <= L.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError

__all__ = ["Coefficients", "check_orthogonal", "fastest_dtype", "frobenius", "orthogonalize"]

Coefficients = Literal["quintic", "polar_express"]

_QUINTIC = ((3.4445, -4.7750, 2.0315),)
# Of the Polar Express for singular values from 0.001 (the paper's listing); the last goes on.
_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
_ROOM = 1.01  # all but the last polynomial are scaled so that a value rounded above 1 comes back
_PROBE_SIZE, _PROBE_ROUNDS = 256, 6


def _coefficients(kind: Coefficients, steps: int) -> list[tuple[float, float, float]]:
    table = _QUINTIC if kind == "quintic" else _POLAR_EXPRESS
    chosen = [table[min(i, len(table) - 1)] for i in range(steps)]
    if kind == "polar_express":
        chosen = [
            (a / _ROOM, b / _ROOM**3, c / _ROOM**5) if (a, b, c) != table[-1] else (a, b, c)
            for a, b, c in chosen
        ]
    return chosen


def orthogonalize(
    x: Tensor,
    *,
    steps: int = 5,
    coefficients: Coefficients = "quintic",
    dtype: Literal["fp32", "bf16"] = "fp32",
    eps: float = 1e-7,
) -> Tensor:
    """U V^T of each matrix's singular value decomposition U S V^T, nearly.

    Args:
        x: [..., m, n]; not changed.
        steps: rounds.
        coefficients: of Muon, or of the Polar Express.
        dtype: of the products; ``fp32`` is the type of ``x`` when that is float64.
        eps: smallest norm that is divided by.

    Returns:
        The same shape, in the type of the products. Zeros stay zeros.

    Examples:
        >>> x = torch.diag(torch.tensor([2.0, 0.1]))
        >>> orthogonalize(x, coefficients="polar_express", steps=9)
        tensor([[1., 0.],
                [0., 1.]])
    """
    kind = torch.bfloat16 if dtype == "bf16" else torch.promote_types(x.dtype, torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    y = x.to(kind)
    y = y.mT if tall else y
    size = frobenius(y).clamp(min=eps)
    y = y / size if y.dtype == x.dtype else y.div_(size)  # a copy is there already
    if coefficients == "polar_express":
        y = y / _ROOM
    flat = y.reshape(-1, *y.shape[-2:]) if y.ndim > 3 else y
    product = torch.addmm if flat.ndim == 2 else torch.baddbmm
    for a, b, c in _coefficients(coefficients, steps):
        gram = flat @ flat.mT
        flat = product(flat, product(gram, gram, gram, beta=b, alpha=c), flat, beta=a)
    y = flat.view(y.shape)
    return y.mT if tall else y


def frobenius(x: Tensor) -> Tensor:
    """Norms of matrices, of a shape that broadcasts to theirs."""
    found: Tensor = torch.norm(x) if x.ndim == 2 else torch.norm(x, dim=(-2, -1), keepdim=True)
    return found


@lru_cache(maxsize=8)
def fastest_dtype(device: str) -> Literal["fp32", "bf16"]:
    """The type in which a kind of device multiplies matrices faster; a few milliseconds, once.

    Processors without bfloat16 arithmetic imitate it, slower than float32.

    Args:
        device: such as ``cpu``.
    """
    if device != "cpu":
        return "bf16" if device == "cuda" else "fp32"
    best: dict[str, float] = {}
    matrices = {
        "bf16": torch.ones(_PROBE_SIZE, _PROBE_SIZE, dtype=torch.bfloat16),
        "fp32": torch.ones(_PROBE_SIZE, _PROBE_SIZE),
    }
    for _ in range(_PROBE_ROUNDS):  # in turn, so that a busy machine slows both
        for name, x in matrices.items():
            start = time.perf_counter()
            torch.mm(x, x)
            best[name] = min(best.get(name, 1e9), time.perf_counter() - start)
    return "bf16" if best["bf16"] < 0.8 * best["fp32"] else "fp32"


def check_orthogonal(ns_steps: int, ns_dtype: str, coefficients: str = "quintic") -> None:
    """Check options of the iteration.

    Raises:
        ConfigError: one is out of its range.
    """
    if not 1 <= ns_steps < 100:
        raise ConfigError(f"ns_steps={ns_steps} must be from 1 to 99; 5 is usual.")
    if ns_dtype not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"ns_dtype={ns_dtype!r} must be 'auto', 'fp32' or 'bf16'.")
    if coefficients not in ("quintic", "polar_express"):
        raise ConfigError(f"coefficients={coefficients!r} must be 'quintic' or 'polar_express'.")
