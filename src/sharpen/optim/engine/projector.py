"""Subspaces of a matrix's gradient: bases from counters or from the gradient itself.

A gradient G [m, n] has its short side compressed to a rank r, so that the long one survives::

    right (m >= n):  R = G P^T  [m, r],  P [r, n],  back R P
    left  (m < n):   R = P^T G  [r, n],  P [m, r],  back P R

================ ============================================================================
``gaussian``     entries N(0, 1/r) (Johnson & Lindenstrauss, 1984)
``rademacher``   entries +-1 / sqrt(r)
``orthogonal``   r orthonormal vectors, uniform: QR of normal numbers
``svd``          the r largest singular vectors of G (Zhao et al., GaLore, 2024, arXiv 2403.03507)
``randsvd``      nearly those: 8 vectors more and one power iteration (Halko et al., 2011)
``permutation``  r coordinates of the short side, at random
``columns``      r columns
``rows``         r rows
``randk``        r entries
================ ============================================================================

Nothing random is remembered: entry (k, i) of the refresh ``count`` of a parameter is lane i mod 4
of Philox with the key (parameter seed, count) and the counter (k, i div 4, 0, 0), so that resumed
runs, other devices and other numbers of threads have the same basis. ``rng="torch"`` draws the
normal numbers as APOLLO's published code does, for comparisons with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.optim.engine.lowrank_native import normal_rows
from sharpen.optim.engine.philox import normal, philox, splitmix64

__all__ = [
    "ORTHONORMAL",
    "SELECTIONS",
    "Kind",
    "Projector",
    "Side",
    "param_seed",
    "random_order",
    "side_is_right",
]

Kind = Literal[
    "gaussian",
    "rademacher",
    "orthogonal",
    "svd",
    "randsvd",
    "permutation",
    "columns",
    "rows",
    "randk",
]
Side = Literal["std", "reverse_std", "left", "right"]
Rng = Literal["philox", "torch"]

SELECTIONS = ("permutation", "columns", "rows", "randk")
"""Kinds whose basis is a list of indices."""

ORTHONORMAL = ("orthogonal", "svd", "randsvd", *SELECTIONS)
"""Kinds for which back(down(G)) is a projection."""

_OVERSAMPLE = 8


def param_seed(seed: int, index: int) -> int:
    """A parameter's 32-bit seed, from that of the optimizer and its index from 1."""
    return splitmix64(seed + index) & 0xFFFFFFFF


def side_is_right(side: Side, shape: tuple[int, int]) -> bool:
    """Whether a side compresses the columns of a matrix; ``std`` compresses the shorter side."""
    if side in ("left", "right"):
        return side == "right"
    return (shape[0] >= shape[1]) == (side == "std")


def random_order(length: int, key: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """A random permutation of 0 to ``length - 1``: int64 [length].

    Examples:
        >>> sorted(random_order(5, (1, 0)).tolist())
        [0, 1, 2, 3, 4]
    """
    counters = torch.arange(-(-length // 4), device=device)
    words = torch.stack(philox(key, (counters, 0, 1, 0)), -1).view(-1)[:length]
    return words.argsort(stable=True)


@dataclass(frozen=True, slots=True)
class Projector:
    """A way down to the subspace of a matrix and back.

    Raises:
        ConfigError: the kind is unknown, or the rank does not fit.

    Examples:
        >>> projector = Projector("orthogonal", 2, (5, 3), right=True)
        >>> gradient = torch.ones(5, 3)
        >>> basis = projector.make(gradient, param_seed(0, 1), count=0)
        >>> basis.shape, projector.down(gradient, basis).shape
        (torch.Size([2, 3]), torch.Size([5, 2]))
    """

    kind: Kind
    """One of the table."""

    rank: int
    """r: vectors, or indices."""

    shape: tuple[int, int]
    """[m, n] of the gradient."""

    right: bool
    """The columns are compressed; decided by the kind for ``columns`` and ``rows``."""

    rng: Rng = "philox"
    """Where normal numbers come from; ``torch`` for ``gaussian`` only."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"proj={self.kind!r} must be one of {', '.join(get_args(Kind))}.")
        if self.rng not in get_args(Rng) or (self.rng == "torch" and self.kind != "gaussian"):
            raise ConfigError(
                f"rng={self.rng!r} must be 'philox', or 'torch' with proj='gaussian'; proj is "
                f"{self.kind!r}."
            )
        if self.kind in ("columns", "rows"):
            object.__setattr__(self, "right", self.kind == "columns")
        limit = math.prod(self.shape) if self.kind == "randk" else self.width
        if not 0 < self.rank <= limit:
            raise ConfigError(
                f"rank={self.rank} must be from 1 to {limit} for a matrix of shape {self.shape}."
            )

    @property
    def width(self) -> int:
        """Length of the compressed side."""
        return self.shape[1] if self.right else self.shape[0]

    @property
    def is_selection(self) -> bool:
        """The basis is a list of indices."""
        return self.kind in SELECTIONS

    @property
    def is_random(self) -> bool:
        """The basis can be made again at any time."""
        return self.kind not in ("svd", "randsvd")

    @property
    def basis_shape(self) -> tuple[int, ...]:
        """Of P, or of the indices."""
        if self.is_selection:
            return (self.rank,)
        return (self.rank, self.width) if self.right else (self.width, self.rank)

    @property
    def low_shape(self) -> tuple[int, ...]:
        """Of R."""
        if self.kind == "randk":
            return (self.rank,)
        m, n = self.shape
        return (m, self.rank) if self.right else (self.rank, n)

    def make(self, g: Tensor, seed: int, count: int) -> Tensor:
        """The basis after ``count`` refreshes.

        Args:
            g: the gradient [m, n]; read by ``svd`` and ``randsvd``, else only for type and device.
            seed: of the parameter, see :func:`param_seed`; for ``rng="torch"`` its index.
            count: refreshes before this one.

        Returns:
            P in the type of ``g``, or int32 indices in ascending order.
        """
        if self.is_selection:
            length = g.numel() if self.kind == "randk" else self.width
            chosen = random_order(length, (seed, count), g.device)[: self.rank]
            return chosen.sort().values.to(torch.int32)
        if self.kind == "svd":
            u, _, vh = torch.linalg.svd(g, full_matrices=False)
            found: Tensor = vh[: self.rank] if self.right else u[:, : self.rank]
            return found
        if self.kind == "gaussian" and self.rng == "torch":
            generator = torch.Generator(g.device).manual_seed(_torch_seed(seed, count))
            shape = self.basis_shape
            return (
                torch.randn(shape, generator=generator, device=g.device) / math.sqrt(self.rank)
            ).to(g.dtype)
        key = seed, count
        rows = self._random_rows(g, key)
        if self.kind == "orthogonal":
            rows = _orthonormal_rows(rows)
        elif self.kind == "randsvd":
            rows = self._leading(g, rows)
        return rows if self.right else rows.T

    def _random_rows(self, g: Tensor, key: tuple[int, int]) -> Tensor:
        """Random vectors as rows [r, width], with r more than the rank for ``randsvd``."""
        rank, root = self.rank, math.sqrt(self.rank)
        if self.kind == "randsvd":
            rank = min(self.rank + _OVERSAMPLE, self.width)
        if self.kind != "rademacher" and g.device.type == "cpu":
            made = normal_rows(rank, self.width, key, root)
            if made is not None:
                return made.to(g.dtype)
        ranks = torch.arange(rank, device=g.device).unsqueeze(1)
        places = torch.arange(-(-self.width // 4), device=g.device)
        words = philox(key, (ranks, places, 0, 0))
        if self.kind == "rademacher":
            numbers = (torch.stack(words, -1) >> 31).to(torch.float32) * 2 - 1
        else:
            numbers = normal(words)
        rows = numbers.reshape(rank, -1)[:, : self.width] / root
        return rows.to(g.dtype).contiguous()

    def _leading(self, g: Tensor, rows: Tensor) -> Tensor:
        """Rows that span nearly the leading singular directions of the compressed side."""
        tall = g if self.right else g.T  # [long, width]
        q = torch.linalg.qr(tall.T @ (tall @ rows.T)).Q
        b = tall @ q
        vectors = torch.linalg.eigh(b.T @ b).eigenvectors.flip(1)
        leading: Tensor = q @ vectors[:, : self.rank]
        return leading.T.contiguous()

    def down(self, g: Tensor, basis: Tensor) -> Tensor:
        """R of a gradient, of :attr:`low_shape`."""
        if self.kind == "randk":
            return g.reshape(-1)[basis]
        if self.is_selection:
            return g.index_select(1 if self.right else 0, basis)
        return g @ basis.T if self.right else basis.T @ g

    def up(self, low: Tensor, basis: Tensor) -> Tensor:
        """Back to [m, n]."""
        if self.is_selection:
            return self.put(low.new_zeros(self.shape), low, basis)
        return low @ basis if self.right else basis @ low

    def add_up(self, whole: Tensor, low: Tensor, basis: Tensor, alpha: float) -> Tensor:
        """A matrix [m, n] plus ``alpha`` times what comes back: one sweep instead of three."""
        if self.is_selection:
            return whole.add(self.up(low, basis), alpha=alpha)
        left, right = (low, basis) if self.right else (basis, low)
        return torch.addmm(whole, left, right, alpha=alpha)

    def put(self, whole: Tensor, low: Tensor, basis: Tensor) -> Tensor:
        """Write the selected entries into a matrix [m, n]."""
        if self.kind == "randk":
            whole.view(-1)[basis] = low
            return whole
        return whole.index_copy_(1 if self.right else 0, basis.long(), low)

    def rotate(self, low: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """What is known in an old orthonormal basis, in a new one: M <- M (P_old P_new^T)."""
        return self.down(self.up(low, old), new)


def _orthonormal_rows(rows: Tensor) -> Tensor:
    q, r = torch.linalg.qr(rows.T)
    # The signs make the distribution uniform, and the result unique.
    signed: Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return signed.T.contiguous()


@lru_cache(maxsize=4096)
def _torch_seed(index: int, count: int) -> int:
    """APOLLO's published chain of seeds: the last of 15 numbers drawn with the seed before."""
    seed = index
    for _ in range(count):
        generator = torch.Generator().manual_seed(seed)
        seed = int(torch.randint(0, 2**63 - 1, (15,), generator=generator)[-1])
    return seed
