"""Tensors that wait elsewhere until they are needed again: in a file, or in host memory.

What a backward pass needs last is kept longest. A store takes it away at once and brings it back
bit by bit equal, both beside the computation::

    put(x)     begins to move x away            settle()   waits until it is gone
    fetch()    begins to bring it back          get()      waits until it is here

A :class:`FileStore` writes and reads in a thread, into a nameless file that the system removes with
the process, however that ends. Freed places are used again by tensors of the same size. A
:class:`HostStore` copies between a CUDA device and page-locked host memory on a stream of its own.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sharpen.core.errors import StorageError, storage_errors

__all__ = ["FileStore", "HostStore", "Stored", "TensorStore"]


class Stored(Protocol):
    """One tensor that is away, or on its way; forgotten with the last reference to it."""

    def settle(self) -> None:
        """Wait until it is gone and its memory is free."""

    def fetch(self) -> None:
        """Begin to bring it back; nothing when it is back or coming."""

    def get(self) -> Tensor:
        """The tensor, equal in values, shape and strides; brought back if it is not."""

    def drop(self) -> None:
        """Forget what was brought back; it is still stored."""


class TensorStore(Protocol):
    """Where tensors wait."""

    def put(self, tensor: Tensor) -> Stored:
        """Begin to move a tensor away; the caller gives up its own references to it."""

    def close(self) -> None:
        """Free what the store holds; what is stored is lost."""


class FileStore:
    """A file on a disk.

    Args:
        folder: on the disk; made if it is not there.

    Attributes:
        bytes_written: since it was made.

    Raises:
        StorageError: no file can be made there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with storage_errors(self.folder, doing="keep tensors in"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                self._file = os.dup(file.fileno())
        self._closing = weakref.finalize(self, os.close, self._file)
        self.bytes_written = 0
        self._end = 0
        self._free: dict[int, list[int]] = defaultdict(list)
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tensor-store")

    def put(self, tensor: Tensor) -> Stored:
        """See :class:`TensorStore`."""
        return _InFile(self, tensor.detach())

    def close(self) -> None:
        """See :class:`TensorStore`."""
        self._thread.shutdown()
        self._closing()

    def _take(self, size: int) -> int:
        with self._lock:
            self.bytes_written += size
            if self._free[size]:
                return self._free[size].pop()
            self._end += size
            return self._end - size

    def _release(self, place: int, size: int) -> None:
        with self._lock:
            self._free[size].append(place)

    def _write(self, tensor: Tensor, place: int) -> None:
        data = _bytes_of(tensor.cpu()).numpy().data
        with storage_errors(self.folder, doing="keep tensors in"):
            while data:
                count = os.pwrite(self._file, data, place)
                data, place = data[count:], place + count

    def _read(self, tensor: Tensor, place: int) -> None:
        data = _bytes_of(tensor).numpy().data
        while data:
            count = os.preadv(self._file, [data], place)
            if not count:
                raise StorageError(f"the file of tensors in {self.folder} was cut short.")
            data, place = data[count:], place + count


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.view(-1).view(torch.uint8)


class _InFile:
    """``_tensor`` is the original until it is written, and then what was read."""

    def __init__(self, store: FileStore, tensor: Tensor) -> None:
        self._store = store
        order = sorted(range(tensor.ndim), key=lambda i: -tensor.stride()[i])
        dense = tensor.permute(order)
        if not dense.is_contiguous():
            order, dense = list(range(tensor.ndim)), tensor.contiguous()
        self._back = sorted(range(tensor.ndim), key=order.__getitem__)
        self._shape, self._dtype, self._device = dense.shape, dense.dtype, dense.device
        self._size = dense.numel() * dense.element_size()
        self._place = store._take(self._size)
        self._tensor: Tensor | None = tensor
        self._coming: Future[Tensor] | None = None
        self._going: Future[None] | None = store._thread.submit(store._write, dense, self._place)

    def settle(self) -> None:
        if self._going is not None:
            self._going.result()
            self._going = self._tensor = None

    def fetch(self) -> None:
        if self._tensor is None and self._coming is None:
            # Memory of the thread that uses it: a second one's would lie beside it unused.
            dense = torch.empty(self._shape, dtype=self._dtype)
            self._coming = self._store._thread.submit(self._bring, dense)

    def get(self) -> Tensor:
        self.fetch()
        if self._coming is not None:
            self._tensor, self._coming = self._coming.result(), None
        assert self._tensor is not None
        return self._tensor

    def drop(self) -> None:
        self.settle()
        self._tensor = None

    def _bring(self, dense: Tensor) -> Tensor:
        self._store._read(dense, self._place)
        return dense.to(self._device).permute(self._back)

    def __del__(self) -> None:
        # A place is free once nothing writes to it any more.
        if self._going is None:
            self._store._release(self._place, self._size)
        else:
            release, place, size = self._store._release, self._place, self._size
            self._going.add_done_callback(lambda _: release(place, size))


class HostStore:  # pragma: no cover - tests marked gpu run it
    """Page-locked memory of the host, for tensors on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def put(self, tensor: Tensor) -> Stored:
        """See :class:`TensorStore`."""
        return _OnHost(self, tensor.detach())

    def close(self) -> None:
        """See :class:`TensorStore`; host memory is freed with what is stored."""


class _OnHost:  # pragma: no cover
    """A copy on the host; on the device only between :meth:`fetch` and :meth:`drop`."""

    def __init__(self, store: HostStore, tensor: Tensor) -> None:
        self._store = store
        self._tensor: Tensor | None = None
        store.stream.wait_stream(torch.cuda.current_stream(store.device))
        with torch.cuda.stream(store.stream):
            self._host = torch.empty_strided(
                tensor.size(), tensor.stride(), dtype=tensor.dtype, pin_memory=True
            )
            self._host.copy_(tensor, non_blocking=True)
        # The device's memory is used again only when the copy is done.
        tensor.record_stream(store.stream)

    def settle(self) -> None:
        """Nothing to wait for: the copy holds no reference to the original."""

    def fetch(self) -> None:
        if self._tensor is None:
            with torch.cuda.stream(self._store.stream):
                self._tensor = self._host.to(self._store.device, non_blocking=True)

    def get(self) -> Tensor:
        self.fetch()
        assert self._tensor is not None
        current = torch.cuda.current_stream(self._store.device)
        current.wait_stream(self._store.stream)
        self._tensor.record_stream(current)
        return self._tensor

    def drop(self) -> None:
        self._tensor = None
