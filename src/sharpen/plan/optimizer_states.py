"""Bytes of optimizer states, by formula.

Elements a matrix of m rows and n columns, s the shorter side and L the longer, rank r, density d::

    sgd without momentum, sign_sgd         0
    lion, sgd with momentum, muon          m n
    adagrad                                m n
    adamw, nadamw, lamb, schedule-free     2 m n
    ademamix                               3 m n
    adafactor                              m + n
    galore, fira                           2 L r + s r
    apollo                                 2 L r       + s r where the basis is kept
    frugal                                 2 d m n     over all matrices
    badam                                  2 m n       of one layer
    cosmos                                 m n + m r + n r + r^2
    soap                                   2 m n + 2 m^2 + 2 n^2

An element takes 4 bytes; in 8 or 4 bits it takes one or a half, and a scale of 4 bytes for each
block within a row. Methods with a rule for matrices leave the rest to AdamW: embeddings, heads,
vectors, and for low-rank rules matrices with a side below 128. In few bits, embeddings, vectors and
small tensors stay in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Shape", "state_bytes"]

Role = Literal["embedding", "head", "matrix", "vector"]
_MIN_QUANTIZED, _MIN_LOW_RANK, _MAX_SOAP = 4096, 128, 10_000
_ELEMENTWISE = {
    "adamw": 2,
    "nadamw": 2,
    "lamb": 2,
    "ademamix": 3,
    "schedule_free_adamw": 2,
    "lion": 1,
    "adagrad": 1,
    "sign_sgd": 0,
}
_RANKS = {"apollo": 256, "q_apollo": 256, "apollo_mini": 1, "galore": 128, "fira": 128}


@dataclass(frozen=True, slots=True)
class Shape:
    """A trained parameter."""

    rows: int
    """Of the matrix; a vector's length."""

    columns: int
    """Of the matrix; 1 for a vector."""

    role: Role
    """What it is in the model."""

    layer: int = 0
    """Which layer it belongs to."""

    @property
    def numel(self) -> int:
        """Elements."""
        return self.rows * self.columns


def state_bytes(name: str, shapes: Iterable[Shape], options: Mapping[str, Any]) -> int:
    """Bytes of the states of all parameters, bases and kept copies included.

    Args:
        name: canonical name of the optimizer.
        shapes: what is trained.
        options: of the optimizer, such as ``rank``, ``density``, ``state_dtype``, ``momentum``.
    """
    base, kind = name, options.get("state_dtype", "fp32")
    block: int = options.get("block_size", 256)
    for suffix, bits in (("_8bit", "q8"), ("_4bit", "q4")):
        if name.endswith(suffix):
            base, kind = name.removesuffix(suffix), options.get("state_dtype", bits)
            block = options.get("block_size", 128 if bits == "q4" else 256)

    def kept(rows: int, columns: int, shape: Shape) -> int:
        """Bytes of one state of so many rows and columns."""
        count = rows * columns
        if kind == "bf16":
            return 2 * count
        small = shape.numel < options.get("min_quant_size", _MIN_QUANTIZED)
        if kind == "fp32" or small or shape.role in ("embedding", "vector"):
            return 4 * count
        bits = 8 if kind == "q8" else 4
        return rows * (-(-columns * bits // 8) + 4 * -(-columns // block))

    if name == "sgd_8bit":
        options = {"momentum": 0.9, **options}
    found = list(shapes)
    if base in ("frugal", "badam"):
        return _blocks(found, kept, options.get("density", 0.25 if base == "frugal" else None))
    return sum(_one(base, shape, kept, options) for shape in found)


def _one(
    name: str, shape: Shape, kept: Callable[[int, int, Shape], int], options: Mapping[str, Any]
) -> int:
    m, n = shape.rows, shape.columns
    if name == "sgd":
        return kept(m, n, shape) if options.get("momentum", 0.0) else 0
    if name in _ELEMENTWISE:
        return _ELEMENTWISE[name] * kept(m, n, shape)
    if name == "adafactor":
        return 4 * (m if shape.role == "vector" else m + n)
    adamw = 2 * kept(m, n, shape)
    if shape.role != "matrix":
        return adamw
    short, long = min(m, n), max(m, n)
    rank: Any = options.get("rank", _RANKS.get(name, 64))
    if name == "muon":
        return kept(m, n, shape)
    if name == "soap":
        longest = options.get("max_precond_dim", _MAX_SOAP)
        longest = min(longest, options.get("max_precond_ratio", 16.0) * short)
        sides = sum(x * x for x in (m, n) if x <= longest)
        return 2 * kept(m, n, shape) + 4 * 2 * sides
    if name == "cosmos":
        r = min(int(rank), short)
        return kept(m, n, shape) + kept(m, r, shape) + 4 * (n * r + r * r)
    if rank == "auto":
        rank = max(1, short // 4)
    if short < options.get("min_lowrank_dim", _MIN_LOW_RANK) or rank >= short:
        return adamw
    rows, columns = (long, rank) if m >= n else (rank, long)
    moments = 2 * kept(rows, columns, shape)
    asked = options.get("cache_projection", "auto")
    keeps = name in ("galore", "fira") or asked is True
    if keeps or (asked == "auto" and (rank == 1 or 16 * rank <= long)):
        moments += 4 * short * rank
    return moments


def _blocks(
    shapes: list[Shape], kept: Callable[[int, int, Shape], int], density: float | None
) -> int:
    """States of the matrices that are active: a share of all, or those of a layer at a time."""
    rest = sum(2 * kept(s.rows, s.columns, s) for s in shapes if s.role != "matrix")
    largest = 0
    layers: Counter[int] = Counter()
    for shape in shapes:
        if shape.role == "matrix":
            size = 2 * kept(shape.rows, shape.columns, shape)
            largest = max(largest, size)
            layers[shape.layer] += size
    if density is None:
        return rest + max(layers.values(), default=0)
    return rest + max(round(density * layers.total()), largest if density else 0)
