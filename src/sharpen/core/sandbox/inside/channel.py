"""Messages between processes over a stream socket: a length, then a value; file descriptors too."""

from __future__ import annotations

import array
import os
import socket
import struct
from typing import Any

from sharpen.core.sandbox.inside.codec import CodecError, decode, encode

__all__ = ["LENGTH", "receive", "receive_bytes", "send", "send_bytes"]

LENGTH = struct.Struct("<Q")
_MAX_FDS = 4


def send_bytes(channel: socket.socket, payload: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send some bytes, and open files with them.

    Raises:
        OSError: nobody reads.
    """
    header = LENGTH.pack(len(payload))
    if fds:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sent = channel.sendmsg([header], passed)
        header = header[sent:]
    channel.sendall(header + payload if len(payload) < 1 << 16 else header)
    if len(payload) >= 1 << 16:
        channel.sendall(payload)


def send(
    channel: socket.socket, value: Any, fds: tuple[int, ...] = (), *, max_bytes: int = 1 << 30
) -> None:
    """Send a value.

    Raises:
        CodecError: it cannot cross.
        OSError: nobody reads.
    """
    send_bytes(channel, encode(value, max_bytes=max_bytes), fds)


def receive_bytes(channel: socket.socket, max_bytes: int) -> tuple[bytes, list[int]]:
    """The next bytes, and the files that came with them.

    Raises:
        EOFError: nobody writes any more.
        CodecError: there are more than ``max_bytes``.
        TimeoutError: the socket's timeout passed.
    """
    header, fds = b"", []
    while len(header) < LENGTH.size:
        size = socket.CMSG_SPACE(_MAX_FDS * 4)
        part, passed, _, _ = channel.recvmsg(LENGTH.size - len(header), size)
        for level, kind, data in passed:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                got = array.array("i")
                got.frombytes(data[: len(data) - len(data) % got.itemsize])
                fds += list(got)
        if not part:
            for fd in fds:
                os.close(fd)
            raise EOFError
        header += part
    (length,) = LENGTH.unpack(header)
    if length > max_bytes:
        raise CodecError(f"a message of {length:,} bytes, more than {max_bytes:,}")
    parts, left = [], length
    while left:
        part = channel.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts), fds


def receive(channel: socket.socket, max_bytes: int = 1 << 30) -> tuple[Any, list[int]]:
    """The next value, and the files that came with it; raises as :func:`receive_bytes`."""
    payload, fds = receive_bytes(channel, max_bytes)
    return decode(payload), fds
