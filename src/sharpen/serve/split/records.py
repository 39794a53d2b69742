"""Keys and values on the wire: records of one layer and a range of tokens, raw bytes.

Patel et al., Splitwise, ISCA 2024, arXiv 2311.18677, section IV-C: a layer's keys and values are
sent as soon as they are computed. A transfer is a sequence of records, each a header and ::

    K [heads, count, D], V [heads, count, D]     of tokens start .. start + count of one layer

in the cache's type and the machine's byte order; the last record holds the first output token
instead. Ranges are of tokens, not of blocks, so the sides may have blocks of different sizes.

The sender gathers a range once and hands its memory to the socket; the receiver copies it to its
place. At most ``_MOST_QUEUED`` records wait for the socket; then the engine waits for the link.
Between processes of one host the bytes go through a ring of shared memory (``ring.py``) instead,
and the headers alone over the socket.
"""

from __future__ import annotations

import queue
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpen.core.errors import FileFormatError
from sharpen.core.model_spec import ModelSpec
from sharpen.models.paged import PagedCache, Seen
from sharpen.serve.split.ring import Ring

__all__ = ["KVReader", "KVSender", "KVWriter"]

_HEADER = struct.Struct("<IIIIQ")  # layer, start, count, flags, checksum or token
_CHECKED, _LAST, _SHARED = 1, 2, 4
_MOST_QUEUED = 256
_PUT_S = 60.0
_LOOK_S = 0.05
_RING_S = 0.0002


class KVSender:
    """Takes keys and values of one prompt from a cache, as a stream of bytes.

    Args:
        cache: of the engine that computes the prompt.
        spec: the model's shape.
        tokens: of the prompt.
        layered: send layers as they are computed; else all after the prompt.
        checksum: add a CRC-32 to each record.
        ring: for the keys and values; default the stream itself.
    """

    def __init__(
        self,
        cache: PagedCache,
        spec: ModelSpec,
        tokens: int,
        *,
        layered: bool = True,
        checksum: bool = False,
        ring: Ring | None = None,
    ) -> None:
        self.layered = layered
        self.sent_bytes = 0
        self._cache = cache
        self._tokens = tokens
        self._checksum = checksum
        self._sent = [0] * spec.num_layers
        self._queue: queue.Queue[list[bytes | memoryview] | None] = queue.Queue(_MOST_QUEUED)
        self._closed = False
        self._ring = ring
        self._num_shared = 0

    def __call__(self, seen: Seen) -> None:
        """A layer has stored those of a part: send all of it that was not sent."""
        self._send(seen.layer, seen.table.tolist(), min(seen.stored, self._tokens))

    def finish(self, blocks: list[int], token: int) -> None:
        """The prompt is computed: send what is left, and the first output token."""
        for layer in range(len(self._sent)):
            self._send(layer, blocks, self._tokens)
        self._put([_HEADER.pack(0, 0, 0, _LAST, token)])
        self._put(None)

    def close(self) -> None:
        """Send nothing any more; the stream ends before its last record."""
        self._closed = True
        while True:  # whoever waits for room goes on
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        with suppress(queue.Full):  # then the stream wakes up anyway
            self._queue.put_nowait(None)

    def stream(self) -> Iterator[bytes | memoryview]:
        """What goes to the socket, until the last record or :meth:`close`."""
        while (record := self._queue.get()) is not None:
            if self._closed:
                return
            for piece in record:
                self.sent_bytes += len(piece)
                yield piece

    def _send(self, layer: int, blocks: list[int], stop: int) -> None:
        start = self._sent[layer]
        if stop <= start or self._closed:
            return
        self._sent[layer] = stop
        buffers = self._cache.buffers(layer)
        heads, _, dim = buffers[0].shape[1:]
        for first, count, out in self._room(stop - start, heads * dim, buffers[0].dtype):
            both = out.view(2, heads, count, dim)
            for one, buffer in zip(both, buffers, strict=True):
                for at, part in _parts(buffer, blocks, start + first, start + first + count):
                    one[:, at].unflatten(1, part.shape[1:3]).copy_(part)
            data = _bytes(out)
            flags, crc = (_CHECKED, zlib.crc32(data)) if self._checksum else (0, 0)
            if self._ring is None:
                header = _HEADER.pack(layer, start + first, count, flags, crc)
                self._put([header, data])
            else:
                self.sent_bytes += len(data)
                self._put([_HEADER.pack(layer, start + first, count, flags | _SHARED, crc)])

    def _room(
        self, count: int, width: int, dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Where to put so many keys and values: first one, how many, and memory for them."""
        ring = self._ring
        if ring is None:
            yield 0, count, torch.empty(2 * width * count, dtype=dtype)
            return
        most = ring.slot_bytes // (2 * width * dtype.itemsize)
        assert most, "a slot holds a token"
        for first in range(0, count, most):
            slot = self._slot(ring)
            if slot is None:
                return
            few = min(most, count - first)
            yield first, few, torch.frombuffer(slot, dtype=dtype, count=2 * width * few)

    def _slot(self, ring: Ring) -> memoryview | None:
        """The next free slot, once the receiver has emptied it; None when it never will."""
        number = self._num_shared
        deadline = time.monotonic() + _PUT_S
        while number - ring.done >= ring.slots and not self._closed:
            time.sleep(_RING_S)
            if time.monotonic() > deadline:
                self.close()
        self._num_shared += 1
        return None if self._closed else ring.slot(number)

    def _put(self, record: list[bytes | memoryview] | None) -> None:
        deadline = time.monotonic() + _PUT_S
        while not self._closed:
            with suppress(queue.Full):
                self._queue.put(record, timeout=_LOOK_S)
                return
            if time.monotonic() > deadline:
                self.close()  # nobody takes it: the link is dead


class KVWriter:
    """Puts records into the blocks of a sequence.

    Args:
        cache: of the engine that goes on.
        spec: the model's shape.
        blocks: those of the sequence.
        tokens: of the prompt.
    """

    def __init__(self, cache: PagedCache, spec: ModelSpec, blocks: list[int], tokens: int) -> None:
        self._cache = cache
        self._spec = spec
        self._blocks = list(blocks)
        self._tokens = tokens
        self._stored = [0] * spec.num_layers
        self.token_bytes = 2 * spec.kv_size * cache.buffers(0)[0].element_size()

    @property
    def complete(self) -> bool:
        """Whether all layers of all tokens have come."""
        return all(count == self._tokens for count in self._stored)

    def check(self, layer: int, start: int, count: int) -> None:
        """Refuse a record that does not continue its layer.

        Raises:
            FileFormatError: a wrong layer, a gap, or more tokens than the prompt has.
        """
        layers = len(self._stored)
        if layer >= layers or start != self._stored[layer] or start + count > self._tokens:
            raise FileFormatError(
                f"keys and values of layer {layer}, tokens {start} to {start + count} do not "
                f"continue a prompt of {self._tokens} tokens in {layers} layers."
            )

    def write(self, layer: int, start: int, count: int, data: bytearray | memoryview) -> None:
        """Store one record, checked before."""
        keys, values = self._cache.buffers(layer)
        spec = self._spec
        shape = (2, spec.num_kv_heads, count, spec.head_dim)
        both = torch.frombuffer(data, dtype=keys.dtype).view(shape)
        with torch.inference_mode():
            for one, buffer in zip(both, (keys, values), strict=True):
                for at, part in _parts(buffer, self._blocks, start, start + count):
                    part.copy_(one[:, at].unflatten(1, part.shape[1:3]))
        self._stored[layer] = start + count


class KVReader:
    """Cuts a stream of bytes into records.

    Args:
        writer: what takes them.
        ring: where keys and values are, unless in the stream.

    Attributes:
        token: the first output token, once the last record has come.
    """

    def __init__(self, writer: KVWriter, ring: Ring | None = None) -> None:
        self._writer = writer
        self._ring = ring
        self._num_shared = 0
        self._data = bytearray()
        self.token: int | None = None

    def taken(self) -> None:
        """All records so far are stored: the sender may use their slots again."""
        if self._ring is not None:
            self._ring.done = self._num_shared

    def feed(self, chunk: bytes) -> list[tuple[int, int, int, bytearray | memoryview]]:
        """Whole records of what has come so far: layer, start, count, keys and values.

        Raises:
            FileFormatError: they do not fit the prompt, or a checksum is wrong.
        """
        self._data += chunk
        found: list[tuple[int, int, int, bytearray | memoryview]] = []
        while len(self._data) >= _HEADER.size and self.token is None:
            layer, start, count, flags, value = _HEADER.unpack_from(self._data)
            if flags & _LAST:
                self.token = value
                break
            size = count * self._writer.token_bytes
            data: bytearray | memoryview
            if flags & _SHARED:
                data, size = self._shared(size), 0
            elif len(self._data) < _HEADER.size + size:
                # Before the whole of it is held: a wrong header may ask for any amount.
                if not found:
                    self._writer.check(layer, start, count)
                break
            else:
                data = self._data[_HEADER.size : _HEADER.size + size]
            del self._data[: _HEADER.size + size]
            if flags & _CHECKED and zlib.crc32(data) != value:
                raise FileFormatError(
                    f"keys and values of layer {layer} from token {start} were damaged on the way."
                )
            found.append((layer, start, count, data))
        return found

    def _shared(self, size: int) -> memoryview:
        """The next record of the ring."""
        if self._ring is None or size > self._ring.slot_bytes:
            raise FileFormatError(f"a record of {size} bytes is in no ring that is shared here.")
        data = self._ring.slot(self._num_shared)[:size]
        self._num_shared += 1
        return data


def _parts(
    buffer: Tensor, blocks: list[int], start: int, stop: int
) -> Iterator[tuple[slice, Tensor]]:
    """Tokens ``start`` .. ``stop`` of a buffer [blocks, heads, B, D], in views of it.

    Yields:
        Which of the tokens, and their [heads, n, C, D], n C tokens: n whole blocks that lie next to
        each other, or a part of one.
    """
    size = buffer.shape[2]
    at = start
    while at < stop:
        i, offset = divmod(at, size)
        first, count = blocks[i], 1
        whole = (stop - at) // size if not offset else 0
        while count < whole and blocks[i + count] == first + count:
            count += 1
        end = at + count * size if whole else min((i + 1) * size, stop)
        inner = slice(offset, offset + (size if whole else end - at))
        part = buffer[first : first + count, :, inner]
        yield slice(at - start, end - start), part.transpose(0, 1)
        at = end


def _bytes(x: Tensor) -> memoryview:
    data: np.ndarray[Any, np.dtype[np.uint8]] = x.view(torch.uint8).numpy()
    return data.data
