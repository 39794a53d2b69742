"""An accelerator for neural networks, by formulas: a PE array under a buffer under DRAM.

Angshuman Parashar et al., "Timeloop: A Systematic Approach to DNN Accelerator Evaluation", ISPASS
2019: a mapping is a nest of loops, split by level, and accesses follow from which loops move the
tile of a tensor. Energies relative to a multiplication: Yu-Hsin Chen, Joel Emer and Vivienne Sze,
"Eyeriss: A Spatial Architecture for Energy-Efficient Dataflow for Convolutional Neural Networks",
ISCA 2016, table IV.

::

    layer      O[n,k,p,q] += W[k,c,r,s] I[n, c, p stride + r, q stride + s]
    tile       a product of intervals at each level, with all of R and S; trips = size / tile
    loads of a tensor's tile   product of trips from the outermost loop to the innermost one that
               has more than one trip and moves the tensor; 1 if there is none
    words      loads * words of the tile; sums come back (loads - different tiles) times
    cycles     max(steps * MACs of a PE a step, DRAM words / bandwidth, buffer words / bandwidth)

    weight     rows take C, columns K; loops N K C P Q: weights stay in the PEs
    output     rows take P, columns K; loops N K P Q C: sums stay in the PEs
    row        rows take R and what fits of C, columns P; loops N K C P Q: a filter's row stays

Tiles divide their dimensions exactly. Those of the buffer are the largest that the limits allow and
that fit it twice (one is filled while one is used); a PE takes as many output channels (or, of
``output``, columns) as fit its registers.

Differs from the papers: what neighbouring tiles of the input share is fetched again; no sparsity;
no links between PEs; the buffer's energy a word grows with the root of its size. Time O(layers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Categorical, Ordinal
from sharpen.core.space import Space

__all__ = [
    "Accelerator",
    "Cost",
    "Layer",
    "Nest",
    "accelerator_space",
    "cost_of",
    "nest_of",
    "words_of",
]

Dataflow = Literal["weight", "output", "row"]
Order = Literal["KCPQ", "KPQC", "CKPQ", "CPQK", "PQKC", "PQCK"]
Sizes = dict[str, int]
TENSORS: dict[str, str] = {"weights": "KC", "inputs": "NCPQ", "outputs": "NKPQ"}
"""The loops that move each tensor."""
_SHRINK = "QPKC"
_BASE_KIB = 108.0
# Energy of a word's access over that of a 16-bit multiplication, which is the unit.
_REGISTER, _BUFFER, _DRAM = 1.0, 6.0, 200.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution, or a matrix product with ``r = s = q = 1``."""

    k: int
    """Output channels."""
    c: int
    """Input channels."""
    p: int
    """Output rows, or rows of a product."""
    q: int = 1
    """Output columns."""
    r: int = 1
    """Rows of the filter."""
    s: int = 1
    """Columns of the filter."""
    stride: int = 1
    n: int = 1
    """Images."""
    repeat: int = 1
    """How often the network has such a layer."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(
                    f"{field.name}={getattr(self, field.name)} must be at least 1 (Layer)."
                )

    @property
    def sizes(self) -> Sizes:
        """By loop."""
        return {"N": self.n, "K": self.k, "C": self.c, "P": self.p, "Q": self.q}

    @property
    def macs(self) -> int:
        """Multiplications."""
        return math.prod(self.sizes.values()) * self.r * self.s


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """The hardware, and how layers are mapped on it."""

    pe_rows: int = 16
    pe_cols: int = 16
    rf_words: int = 256
    """Words of 16 bits in the registers of a PE."""
    buffer_kib: int = 128
    """Of the buffer that all PEs share."""
    dram_words: int = 8
    """Words from or to DRAM in a cycle."""
    buffer_words: int = 64
    """Words from or to the buffer in a cycle."""
    dataflow: Dataflow = "weight"
    """What stays in the PEs."""
    order: Order = "KCPQ"
    """Loops over the buffer's tiles, the outermost first; N is around them."""
    tile_k: int = 64
    """Largest tile of the buffer in K; likewise the others."""
    tile_c: int = 64
    tile_p: int = 16
    tile_q: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{field.name}={value} must be at least 1 (Accelerator).")
        for name, kind in (("dataflow", Dataflow), ("order", Order)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(kind))} "
                    "(Accelerator)."
                )

    @property
    def area_mm2(self) -> float:
        """A rough area at 45 nm: 0.002 a multiplier, 0.01 a KiB of registers, 0.005 of buffer."""
        pes = self.pe_rows * self.pe_cols
        return pes * (0.002 + 0.01 * self.rf_words * 2 / 1024) + 0.005 * self.buffer_kib


@dataclass(frozen=True, slots=True)
class Nest:
    """How a layer is carried out."""

    loops: tuple[tuple[str, int], ...]
    """Loops and their trips over the buffer's tiles, then over the array's in a tile."""
    outer: int
    """How many of them are over the buffer's tiles."""
    buffer: Sizes
    """The buffer's tile, by loop."""
    array: Sizes
    """What the array works on in a step, by loop."""
    macs: int
    """Multiplications of a busy PE in a step."""
    pes: int
    """Busy PEs."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer, or a network, takes."""

    macs: int
    cycles: float
    dram: dict[str, int]
    """Words that cross DRAM's bus, by tensor."""
    buffer: dict[str, int]
    """Words that the array reads from the buffer or writes to it, by tensor."""
    registers: int
    """Accesses to registers."""
    energy: float
    """In multiplications of 16 bits, about a picojoule each at 45 nm."""
    utilization: float
    """Share of the PEs' time that is multiplications."""

    @staticmethod
    def total(parts: Sequence[tuple[int, Cost]]) -> Cost:
        """Of layers, each so many times."""
        tensors = tuple(TENSORS)
        cycles = sum(n * c.cycles for n, c in parts)
        return Cost(
            macs=sum(n * c.macs for n, c in parts),
            cycles=cycles,
            dram={t: sum(n * c.dram[t] for n, c in parts) for t in tensors},
            buffer={t: sum(n * c.buffer[t] for n, c in parts) for t in tensors},
            registers=sum(n * c.registers for n, c in parts),
            energy=sum(n * c.energy for n, c in parts),
            utilization=sum(n * c.cycles * c.utilization for n, c in parts) / cycles,
        )


def accelerator_space() -> Space:
    """Hardware and mapping of an accelerator: 35.8 million designs."""
    return Space(
        pe_rows=Ordinal([4, 8, 16, 32], default=16),
        pe_cols=Ordinal([4, 8, 16, 32], default=16),
        rf_words=Ordinal([128, 256, 512, 1024], default=256),
        buffer_kib=Ordinal([32, 64, 128, 256, 512, 1024], default=128),
        dram_words=Ordinal([2, 4, 8, 16], default=8),
        dataflow=Categorical(*get_args(Dataflow)),
        order=Categorical(*get_args(Order)),
        tile_k=Ordinal([8, 16, 32, 64, 128, 256], default=64),
        tile_c=Ordinal([8, 16, 32, 64, 128, 256], default=64),
        tile_p=Ordinal([1, 4, 8, 16, 32, 64], default=16),
        tile_q=Ordinal([1, 4, 8, 16, 32, 64], default=16),
    )


def words_of(layer: Layer, tile: Sizes) -> dict[str, int]:
    """Words of each tensor that a tile touches."""
    rows, columns = (
        size * filter_ if layer.stride >= filter_ else (size - 1) * layer.stride + filter_
        for size, filter_ in ((tile["P"], layer.r), (tile["Q"], layer.s))
    )
    return {
        "weights": tile["K"] * tile["C"] * layer.r * layer.s,
        "inputs": tile["N"] * tile["C"] * rows * columns,
        "outputs": tile["N"] * tile["K"] * tile["P"] * tile["Q"],
    }


def nest_of(layer: Layer, hardware: Accelerator) -> Nest | None:
    """The mapping of a layer; None where not even the smallest tile fits."""
    sizes, h = layer.sizes, hardware
    limits = {"N": 1, "K": h.tile_k, "C": h.tile_c, "P": h.tile_p, "Q": h.tile_q}
    tile = {name: _divisor(size, limits[name]) for name, size in sizes.items()}
    room = h.buffer_kib * 512 // 2  # words, half of them for the next tile
    turn = 0
    while sum(words_of(layer, tile).values()) > room:
        name = _SHRINK[turn % len(_SHRINK)]
        turn += 1
        if all(tile[other] == 1 for other in _SHRINK):
            return None
        tile[name] = _divisor(sizes[name], max(tile[name] - 1, 1))
    array = dict.fromkeys(sizes, 1)
    taps, kept = layer.r * layer.s, "K"
    if h.dataflow == "weight":
        array["C"] = _divisor(tile["C"], h.pe_rows)
        array["K"] = _divisor(tile["K"], h.pe_cols)
        pes = array["C"] * array["K"]
    elif h.dataflow == "output":
        array["P"] = _divisor(tile["P"], h.pe_rows)
        array["K"] = _divisor(tile["K"], h.pe_cols)
        pes, kept = array["P"] * array["K"], "Q"
    else:
        if layer.r > h.pe_rows:
            return None
        array["C"] = _divisor(tile["C"], h.pe_rows // layer.r)
        array["P"] = _divisor(tile["P"], h.pe_cols)
        taps, pes = layer.s, layer.r * array["C"] * array["P"]
    # Taps that all share (inputs, or weights of an output's columns), then taps and a sum for each.
    most = (h.rf_words - taps) // (taps + 1)
    if most < 1:
        return None
    own = _divisor(tile[kept] // array[kept], most)
    array[kept] *= own
    inner = "NKPQC" if h.dataflow == "output" else "NKCPQ"
    loops = [(name, sizes[name] // tile[name]) for name in "N" + h.order]
    loops += [(name, tile[name] // array[name]) for name in inner]
    return Nest(tuple(loops), 5, tile, array, own * taps, pes)


def _divisor(size: int, most: int) -> int:
    """The largest divisor of ``size`` that is at most ``most``."""
    return next(d for d in range(min(size, most), 0, -1) if size % d == 0)


def _moved(loops: Sequence[tuple[str, int]], by: str) -> tuple[int, int]:
    """How often a tile is loaded, and how many different ones there are."""
    last = max((k for k, (name, trips) in enumerate(loops) if trips > 1 and name in by), default=-1)
    loads = math.prod(trips for _, trips in loops[: last + 1])
    return loads, math.prod(trips for name, trips in loops if name in by)


def _crossing(layer: Layer, loops: Sequence[tuple[str, int]], tile: Sizes) -> dict[str, int]:
    """Words that cross into a level and out of it, by tensor."""
    found = {}
    for tensor, words in words_of(layer, tile).items():
        loads, different = _moved(loops, TENSORS[tensor])
        times = 2 * loads - different if tensor == "outputs" else loads
        found[tensor] = times * words
    return found


def cost_of(layer: Layer, hardware: Accelerator) -> Cost | None:
    """What one such layer takes; None where it cannot be mapped."""
    nest = nest_of(layer, hardware)
    if nest is None:
        return None
    dram = _crossing(layer, nest.loops[: nest.outer], nest.buffer)
    buffer = _crossing(layer, nest.loops, nest.array)
    busy = math.prod(trips for _, trips in nest.loops) * nest.macs
    crossing, moved = sum(dram.values()), sum(buffer.values())
    cycles = max(busy, crossing / hardware.dram_words, (moved + crossing) / hardware.buffer_words)
    registers = 4 * layer.macs  # two factors, and a sum read and written
    scale = math.sqrt(hardware.buffer_kib / _BASE_KIB)
    energy = layer.macs + _REGISTER * registers + _DRAM * crossing
    energy += _BUFFER * scale * (moved + crossing)
    pes = hardware.pe_rows * hardware.pe_cols
    return Cost(layer.macs, cycles, dram, buffer, registers, energy, layer.macs / (cycles * pes))
