"""Memory that two processes of one host share, as a ring: one writes records, the other reads them.

::

    writer    waits until done > n - slots;  record n into slot n mod slots;  tells of it
    reader    told of record n: takes it out of its slot;  done <- n + 1

What tells is another channel, in order. The memory is an anonymous file (Linux ``memfd_create``)
that the reader opens through ``/proc`` of the writer, so it has no name and is gone with the last
of the two, however they end: nothing is left in ``/dev/shm``, and no start has to sweep there. It
is sealed against shrinking, so that reading it cannot fault. Its first bytes are a secret that only
the writer tells, so that nobody makes a reader open another file.

Memory: ``slots * slot_bytes`` and a page a ring; all of it is taken when the ring is made.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import mmap
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from sharpen.core.errors import ConfigError, ExecutionError

__all__ = ["Connector", "Ring", "Rings"]

_log = logging.getLogger(__name__)

Connector = Literal["auto", "http", "shm"]
_NAME = "sharpen-kv"
_PAGE = 4096
_SECRET_BYTES = 32
_DONE_AT = 64
_SLOTS, _SLOT_BYTES = 32, 1 << 20
_MOST_RINGS = 8


class Ring:
    """One ring; made by the writer, :meth:`opened` by the reader.

    Args:
        slots: records that may wait for the reader.
        slot_bytes: of the largest record.

    Raises:
        OSError: there is not the memory, or the system has no such files.
    """

    def __init__(self, slots: int = _SLOTS, slot_bytes: int = _SLOT_BYTES) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        size = _PAGE + slots * slot_bytes
        secret = secrets.token_bytes(_SECRET_BYTES)
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd_create")
        self._file = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Taken now: memory that runs out at the first touch would end the process.
            os.posix_fallocate(self._file, 0, size)
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            os.pwrite(self._file, secret, 0)
            self._map(size)
        except BaseException:
            os.close(self._file)
            raise
        self.ticket = f"{os.getpid()}.{self._file}.{slots}.{slot_bytes}.{secret.hex()}"

    @classmethod
    def opened(cls, ticket: str) -> Ring:
        """The ring that another process tells of by its ``ticket``.

        Raises:
            ExecutionError: it is not to be reached from here.
        """
        ring = cls.__new__(cls)
        try:
            pid, number, ring.slots, ring.slot_bytes = (int(x) for x in ticket.split(".")[:4])
            path = Path(f"/proc/{pid}/fd/{number}")
            if not str(path.readlink()).startswith(f"/memfd:{_NAME}"):
                raise ValueError("it is another file")
            ring._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise ExecutionError(f"no ring of memory is shared with this worker: {error}") from None
        try:
            size = _PAGE + ring.slots * ring.slot_bytes
            secret = os.pread(ring._file, _SECRET_BYTES, 0).hex()
            is_sealed = fcntl.fcntl(ring._file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            if not hmac.compare_digest(secret, ticket.rpartition(".")[2]):
                raise ExecutionError("no ring of memory is shared with this worker: wrong secret.")
            if not is_sealed or os.fstat(ring._file).st_size != size:
                raise ExecutionError("no ring of memory is shared with this worker: wrong size.")
            ring._map(size)
        except BaseException:
            os.close(ring._file)
            raise
        ring.ticket = ticket
        return ring

    @property
    def done(self) -> int:
        """Records that the reader has taken out."""
        return int(self._done[0])

    @done.setter
    def done(self, count: int) -> None:
        self._done[0] = count

    def slot(self, number: int) -> memoryview:
        """The slot of record ``number``, to be written or read."""
        start = _PAGE + number % self.slots * self.slot_bytes
        return self._memory[start : start + self.slot_bytes]

    def close(self) -> None:
        """Let go of it; the memory goes with the last view of a slot."""
        os.close(self._file)

    def _map(self, size: int) -> None:
        memory = mmap.mmap(self._file, size)
        self._memory = memoryview(memory)
        self._done = np.frombuffer(memory, np.uint64, 1, _DONE_AT)


class Rings:
    """The rings that a worker writes to, and whom it reaches by them.

    A ring is used again after a transfer that its reader took whole; after any other it is let go,
    so that nobody who is late reads what is not meant for him.

    Args:
        connector: ``auto`` and ``shm`` share memory with workers of this host, and ``shm`` warns
            where that fails; ``http`` never does.
        slots: see :class:`Ring`.
        slot_bytes: see :class:`Ring`.

    Raises:
        ConfigError: another connector.
    """

    def __init__(
        self, connector: Connector = "auto", slots: int = _SLOTS, slot_bytes: int = _SLOT_BYTES
    ) -> None:
        if connector not in ("auto", "http", "shm"):
            raise ConfigError(f"kv_connector={connector!r} must be auto, http or shm.")
        self.connector = connector
        self._shape = slots, slot_bytes
        self._lock = threading.Lock()
        self._idle: list[Ring] = []
        self._num_taken = 0
        self._reached: dict[str, bool] = {}
        self._warned: set[str] = set()

    def take(self, target: str, ask: Callable[[str], bool]) -> Ring | None:
        """A ring to a worker; None where keys and values have to go by HTTP.

        Args:
            target: its address.
            ask: whether it reaches the ring of a ticket; called once for each target.
        """
        if self.connector == "http" or self._reached.get(target) is False:
            return None
        with self._lock:
            if self._num_taken >= _MOST_RINGS:
                return None
            self._num_taken += 1
            ring = self._idle.pop() if self._idle else None
        if ring is None:
            try:
                ring = Ring(*self._shape)
            except OSError as error:
                self._warn("memory", f"no memory can be shared ({error})", always=True)
                self._free()
                return None
        if target not in self._reached:
            try:
                self._reached[target] = ask(ring.ticket)
            except BaseException:
                self.drop(ring)
                raise
            if not self._reached[target]:
                self._warn(target, f"{target} shares no memory with this worker")
                self.give(ring)
                return None
        return ring

    def give(self, ring: Ring) -> None:
        """The reader has taken all of a ring out."""
        ring.done = 0
        with self._lock:
            self._idle.append(ring)
        self._free()

    def drop(self, ring: Ring) -> None:
        """A transfer by a ring failed."""
        ring.close()
        self._free()

    def forget(self, target: str) -> None:
        """A worker no longer reaches rings: ask it again next time."""
        self._reached.pop(target, None)

    def close(self) -> None:
        """Let go of rings that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for ring in idle:
            ring.close()

    def _free(self) -> None:
        with self._lock:
            self._num_taken -= 1

    def _warn(self, cause: str, text: str, *, always: bool = False) -> None:
        """Say once for each cause that HTTP is used."""
        if cause not in self._warned and (always or self.connector == "shm"):
            self._warned.add(cause)
            _log.warning("%s: keys and values go by HTTP.", text)
