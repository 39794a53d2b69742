"""Decoding steps on CUDA devices as graphs: one launch in place of hundreds.

A step of one token a sequence starts the same kernels on the same addresses whatever the sequences
are, so it is recorded once for each of a few numbers of rows R and then replayed; a step of fewer
rows is filled up with rows that see nothing and store nothing. What differs from step to step goes
to the device in one copy of 32-bit integers before, W being the blocks of the longest table::

    W | ids[R] | positions[R] | slots[R] | places[R] | tables[R, W]

The kernels are those of ``triton_step.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.models.paged import PagedCache, PagedContext, PagedPart
from sharpen.models.step import Rows

__all__ = ["DecodeGraphs", "StepInputs", "graph_sizes"]

_MOST_ROWS = 512
_FIELDS = 4


def graph_sizes(most: int) -> list[int]:
    """Numbers of rows that are recorded, at most a third too many from 8 on; up to 512.

    Args:
        most: rows of the largest step.
    """
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, _MOST_ROWS + 1, 32)]
    most = min(most, _MOST_ROWS)
    return [*(size for size in sizes if size < most), most]


class StepInputs:
    """What a step of one token a sequence needs, in one buffer on the host and one on the device.

    Args:
        angles: cos and sin [S, D/2] float32 on the device, of all positions.
        cache: keys and values.
        most: rows of the largest step.
        longest: tokens of the longest sequence.
    """

    def __init__(
        self, angles: tuple[Tensor, Tensor], cache: PagedCache, *, most: int, longest: int
    ) -> None:
        self._angles = angles
        self._cache = cache
        width = min(-(-longest // cache.block_size), cache.num_blocks)
        length = 1 + most * (_FIELDS + width)
        self._host = torch.zeros(length, dtype=torch.int32)
        if cache.device.type == "cuda":
            self._host = self._host.pin_memory()
        self._numbers = self._host.numpy()
        self._device = torch.zeros(length, dtype=torch.int32, device=cache.device)
        self._laid_out = 0, 0
        self._tables: list[list[int]] = []

    def lay(self, parts: Sequence[PagedPart], size: int) -> None:
        """Bring parts to the device as a step of so many rows; the last copy must have ended."""
        used = self._write(parts, size)
        self._device[:used].copy_(self._host[:used], non_blocking=True)

    def context(self, size: int) -> PagedContext:
        """Of what is laid out on the device."""
        device = self._device.device
        ids, positions, slots, places = self._device[1 : 1 + _FIELDS * size].view(_FIELDS, size)
        rows = Rows(
            places=places,
            tables=self._device[1 + _FIELDS * size :],
            sequences=torch.arange(size, dtype=torch.int32, device=device),
            positions=slots,
            width=self._device[:1],
        )
        cos, sin = (table[positions][:, None] for table in self._angles)
        every = torch.arange(size, device=device)
        return PagedContext(ids.long(), every, cos, sin, self._cache, rows, rows, (), (), ())

    def _write(self, parts: Sequence[PagedPart], size: int) -> int:
        """Write what differs from the last step; how many numbers there are."""
        block = self._cache.block_size
        count, width = len(parts), max((len(part.blocks) for part in parts), default=1)
        numbers = self._numbers
        numbers[0] = width
        fields = numbers[1 : 1 + _FIELDS * size].reshape(_FIELDS, size)
        fields[:, count:] = [[0], [0], [-1], [-1]]
        fields[0, :count] = [part.ids[0] for part in parts]
        fields[1, :count] = [part.start for part in parts]
        slots = [part.start - part.dropped for part in parts]
        fields[2, :count] = slots
        fields[3, :count] = [
            part.blocks[slot // block] * block + slot % block
            for part, slot in zip(parts, slots, strict=True)
        ]
        if self._laid_out != (size, width):
            self._laid_out = size, width
            self._tables = [[] for _ in range(size)]
        begin = 1 + _FIELDS * size
        for i, (part, known) in enumerate(zip(parts, self._tables, strict=False)):
            if part.blocks != known:  # few tables change from step to step
                at = begin + i * width
                numbers[at : at + len(part.blocks)] = part.blocks
                self._tables[i] = list(part.blocks)
        return begin + count * width


class DecodeGraphs:
    """Recorded steps over one cache.

    Args:
        states: the model: states [R, H] of a context's rows, all of them wanted.
        angles: cos and sin [S, D/2] float32 on the device, of all positions.
        cache: keys and values.
        most: rows of the largest step.
        longest: tokens of the longest sequence.
    """

    def __init__(
        self,
        states: Callable[[PagedContext], Tensor],
        angles: tuple[Tensor, Tensor],
        cache: PagedCache,
        *,
        most: int,
        longest: int,
    ) -> None:
        self.cache = cache
        self._states = states
        self._sizes = graph_sizes(most)
        self._inputs = StepInputs(angles, cache, most=self._sizes[-1], longest=longest)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        pool = None
        for size in reversed(self._sizes):  # the largest first: the others fit in its memory
            graph, out = self._record(size, pool)
            pool = graph.pool()
            self._graphs[size] = graph, out

    def fits(self, parts: Sequence[PagedPart]) -> bool:
        """Whether a step is the next token of each part, and nothing else."""
        return len(parts) <= self._sizes[-1] and all(
            len(part.ids) == 1
            and part.wanted == 1
            and part.watcher is None
            and part.adapter is None
            for part in parts
        )

    def __call__(self, parts: Sequence[PagedPart]) -> Tensor:
        """States [R, H] after the final norm; valid until the next call."""
        size = next(size for size in self._sizes if size >= len(parts))
        self._copied.synchronize()
        self._inputs.lay(parts, size)
        self._copied.record()
        graph, out = self._graphs[size]
        graph.replay()
        return out[: len(parts)]

    def _record(self, size: int, pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A step of so many rows, and where its result will lie."""
        self._inputs.lay([], size)
        device = self.cache.device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(2):  # compiles kernels, and lets libraries make their work spaces
                self._states(self._inputs.context(size))
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)  # what was laid out has been read
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            out = self._states(self._inputs.context(size))
        return graph, out
