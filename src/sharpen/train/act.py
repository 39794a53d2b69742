"""What checkpointed blocks keep waits elsewhere until the backward pass comes for it.

With activation checkpointing a block of T tokens keeps its input, e h T bytes, or a few times that
(``selective``). Over all blocks that grows with the sequence and soon outweighs all else (Bekman et
al., *Arctic long sequence training*, 2025, arXiv 2506.13996, activation checkpoint offload). While
block i runs, what block i-1 kept is moved away; in the backward pass, when block i needs its own,
that of block i-1 is already on its way::

    forward    block i     | block i-1 goes       waits for block i-2 to be gone
    backward   block i     | block i-1 comes

The last block's stays: the backward pass begins with it. Values come back bit by bit.

Differs from the paper: a file serves where there is no second memory.

Memory: what three blocks keep, whatever their number. Moved: once each way a forward pass.
"""

from __future__ import annotations

import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sharpen.core.errors import ConfigError
from sharpen.models.decoder import DecoderLM
from sharpen.train.config import ActConfig
from sharpen.train.tensor_store import FileStore, HostStore, Stored, TensorStore

__all__ = ["ActivationOffload", "OffloadWarning", "apply_act", "make_store"]

_LEAST_BYTES = 4096


class OffloadWarning(UserWarning):
    """Offloading was asked for and changes nothing."""


def apply_act(model: nn.Module, act: ActConfig) -> None:
    """Make a model keep what ``act`` says; tiles of the loss and offload are the trainer's.

    Args:
        model: its attributes change.
        act: the config.

    Raises:
        ConfigError: it is no :class:`~sharpen.models.decoder.DecoderLM`, and something was asked.
    """
    if isinstance(model, DecoderLM):
        model.checkpointing, model.checkpoint_every = act.mode, act.every
        model.mlp_tile = act.tiled_mlp
    elif act.mode != "none" or act.tiled_mlp or act.attention_chunk:
        raise ConfigError(
            f"act.mode={act.mode}, act.tiled_mlp={act.tiled_mlp} and act.attention_chunk="
            f"{act.attention_chunk} need a DecoderLM, and the model is a {type(model).__name__}. "
            "Set act.mode=none, act.tiled_mlp=0 and act.attention_chunk=0."
        )


def make_store(
    kind: Literal["none", "cpu", "nvme"],
    device: torch.device,
    folder: str | Path | None,
    *,
    key: str = "offload",
) -> TensorStore | None:
    """The store that a key of ``act`` names.

    Args:
        kind: ``cpu`` is host memory, ``nvme`` a file.
        device: where the model computes.
        folder: for the file; None for the system's temporary one.
        key: which, for the warning.

    Returns:
        None for ``none``, and with an :class:`OffloadWarning` for ``cpu`` on a CPU.

    Raises:
        StorageError: no file can be made.
    """
    if kind == "nvme":
        return FileStore(tempfile.gettempdir() if folder is None else folder)
    if kind == "cpu" and device.type == "cuda":
        return HostStore(device)
    if kind == "cpu":
        warnings.warn(
            f"the model is on {device.type}, in host memory already: act.{key}=cpu changes "
            f"nothing. act.{key}=nvme takes activations to a file.",
            OffloadWarning,
            stacklevel=2,
        )
    return None


class _Unit:
    """What one block keeps."""

    def __init__(self, before: _Unit | None) -> None:
        self.before = before
        # Autograd alone decides how long a tensor is kept.
        self.kept: weakref.WeakValueDictionary[Any, _Kept] = weakref.WeakValueDictionary()

    def begin(self, store: TensorStore) -> None:
        """Begin to move it away."""
        for kept in self.kept.values():
            kept.move(store)

    def settle(self) -> None:
        for kept in self.kept.values():
            kept.settle()

    def fetch(self) -> None:
        for kept in self.kept.values():
            kept.fetch()


class _Kept:
    """One tensor, here or away."""

    def __init__(self, tensor: Tensor, unit: _Unit) -> None:
        self.tensor: Tensor | None = tensor
        self.stored: Stored | None = None
        self.unit = unit

    def move(self, store: TensorStore) -> None:
        if self.tensor is not None:
            self.stored, self.tensor = store.put(self.tensor), None

    def settle(self) -> None:
        if self.stored is not None:
            self.stored.settle()

    def fetch(self) -> None:
        if self.stored is not None:
            self.stored.fetch()

    def get(self) -> Tensor:
        if self.stored is not None:
            self.tensor, self.stored = self.stored.get(), None
        assert self.tensor is not None
        return self.tensor


class ActivationOffload:
    """Moves what blocks keep into a store; a :class:`~sharpen.models.decoder.ActivationStore`.

    Args:
        store: where it waits.

    Raises:
        StorageError: from a later forward pass, when writing failed.

    Example:
        Around any part of a forward pass that autograd records::

            offload = ActivationOffload(FileStore("scratch"))
            for number, block in enumerate(blocks):
                with offload.unit(number):
                    x = checkpoint(block, x, use_reentrant=False)
    """

    def __init__(self, store: TensorStore) -> None:
        self.store = store
        self._unit: _Unit | None = None
        self._number = -1

    @contextmanager
    def unit(self, number: int) -> Iterator[None]:
        """Around the forward pass of one block.

        Args:
            number: of the block; 0, or one not above the last, begins another forward pass.
        """
        last = self._unit if number > self._number else None
        if last is not None:
            last.begin(self.store)
            if last.before is not None:
                last.before.settle()
        unit = self._unit = _Unit(last)
        self._number = number
        with saved_tensors_hooks(lambda tensor: self._pack(unit, tensor), _unpack):
            yield

    def _pack(self, unit: _Unit, tensor: Tensor) -> Tensor | _Kept:
        small = tensor.numel() * tensor.element_size() < _LEAST_BYTES
        whole = tensor if tensor._base is None else tensor._base
        if small or not tensor.is_floating_point() or isinstance(whole, nn.Parameter):
            return tensor
        key = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        kept = unit.kept.get(key)
        if kept is None:
            kept = unit.kept[key] = _Kept(tensor, unit)
        return kept


def _unpack(kept: Tensor | _Kept) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    if kept.unit.before is not None:
        kept.unit.before.fetch()
    return kept.get()
