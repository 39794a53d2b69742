"""Steps of many parameters by one call of native code (``native/optim.cpp``).

Weights, gradients and states are read and written once, by all threads, in chunks over all
parameters together, so that small ones cost little; states of 8 or 4 bits are read, changed and
packed again block by block in the cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sharpen.native.build import function
from sharpen.optim.engine.quant import BlockQuantTensor, native_library, packs_natively
from sharpen.optim.engine.rule import Entry, Stored, is_plain

__all__ = ["States", "serves", "step"]

States = Sequence[str | None]
"""Slots of the parameter's shape: one that has a sign, one that has none, one more that has a sign;
None for one that a rule does not have."""

_MOST = 3  # states
_CHUNK = 1 << 16  # elements of a float32 state that count as a block


def serves(entry: Entry, states: States, *, coupled: bool = False) -> bool:
    """Whether :func:`step` takes an entry.

    Args:
        entry: of which parameter.
        states: slots that the kernel changes.
        coupled: the kernel can add the decay to gradients.
    """
    return (
        is_plain(entry, coupled=coupled)
        and all(name is None or _fits(entry.state[name], entry) for name in states)
        and native_library() is not None
    )


def _fits(slot: Stored, entry: Entry) -> bool:
    if isinstance(slot, BlockQuantTensor):
        whole = slot.codes.is_contiguous() and slot.absmax.is_contiguous()
        native = packs_natively(slot.bits, slot.block_size)
        return native and whole and entry.group["code_rounding"] == "nearest"
    return slot.dtype == torch.float32 and slot.is_contiguous()


def step(
    kernel: str,
    entries: Sequence[Entry],
    states: States,
    numbers: Callable[[Entry], Sequence[float]],
    scale: float,
    *,
    whole: bool = False,
) -> int:
    """Take the steps of entries.

    Args:
        kernel: name of the native function.
        entries: that :func:`serves` accepts.
        states: slots that the kernel changes.
        numbers: those that the kernel takes for an entry.
        scale: factor of all gradients.
        whole: the kernel leaves a parameter alone of which a gradient entry is not finite; such
            ones get their clock set back.

    Returns:
        How many gradient entries were not finite.
    """
    library = native_library()
    assert library is not None
    jobs: list[int] = []
    values: list[float] = []
    for entry in entries:
        jobs += _job(entry, [entry.state[name] if name else None for name in states])
        values.append(-scale if entry.group["maximize"] else scale)
        values += numbers(entry)
    bad = (ctypes.c_int64 * len(entries))()
    pointer = ctypes.c_void_p
    call = function(library, kernel, pointer, pointer, ctypes.c_int64, pointer, ctypes.c_int)
    call(
        (ctypes.c_int64 * len(jobs))(*jobs),
        (ctypes.c_float * len(values))(*values),
        len(entries),
        bad,
        torch.get_num_threads(),
    )
    if whole and any(bad):
        for entry, found in zip(entries, bad, strict=True):
            if found and entry.group["skip_nonfinite"]:
                entry.clock.fill_(entry.t - 1)
    return sum(bad)


def _job(entry: Entry, slots: Sequence[Stored | None]) -> list[int]:
    """Addresses and sizes, in the order of ``Job`` in the native code."""
    size = entry.parameter.numel()
    rows, block, bits = 1, _CHUNK, 0
    addresses, scales = [0] * _MOST, [0] * _MOST
    for i, slot in enumerate(slots):
        if slot is None:
            continue
        if isinstance(slot, Tensor):
            addresses[i] = slot.data_ptr()
            continue
        addresses[i], scales[i] = slot.codes.data_ptr(), slot.absmax.data_ptr()
        block, bits = slot.block_size, slot.bits
        rows = slot.shape[0] if slot.layout == "row" and len(slot.shape) > 1 else 1
    group = entry.group
    flags = [int(group["v_floor"]), int(group["skip_nonfinite"])]
    pointers = [entry.parameter.data_ptr(), entry.grad.data_ptr(), *addresses, *scales]
    return [*pointers, rows, size // rows, block, bits, *flags]
