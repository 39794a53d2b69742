"""Files that are never half-written: atomic writes, folders that appear whole, locks, hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sharpen.core.errors import BusyError, storage_errors

__all__ = [
    "FileLock",
    "atomic_dir",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "cache_home",
    "follow_umask",
    "fsync_dir",
    "fsync_file",
    "fsync_tree",
    "sha256_file",
]


def cache_home() -> Path:
    """Where what can be made again is kept: ``$XDG_CACHE_HOME/sharpen``, ``~/.cache/sharpen``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sharpen"


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries, so that a rename inside it survives power loss."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Flush a file's content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(root: Path) -> None:
    """Flush every file and folder below ``root``, and ``root`` itself."""
    for folder, _, files in os.walk(root):
        for name in files:
            fsync_file(Path(folder) / name)
        fsync_dir(Path(folder))


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; readers see the old file or the new one, never a part.

    Raises:
        StorageError: disk full, no permission, read-only file system.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            follow_umask(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


def follow_umask(path: Path) -> None:
    """Give a file or folder that was made private the mode the user's umask gives new ones."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


_umask_lock = threading.Lock()


def _umask() -> int:
    with _umask_lock:  # it can only be read by setting it
        mask = os.umask(0)
        os.umask(mask)
    return mask


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, atomically."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, atomically; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends well.

    An existing ``path`` is replaced only then. On an error nothing is left behind.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            follow_umask(temporary)
            yield temporary
            fsync_tree(temporary)
            if path.exists():
                old = Path(
                    tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent)
                )
                path.replace(old / path.name)
                temporary.replace(path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.replace(path)
            fsync_dir(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def sha256_file(path: Path) -> str:
    """The sha256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileLock:
    """An exclusive lock on a file, held until :meth:`release` or the process ends.

    The operating system drops it when the holder dies, so a SIGKILL leaves no stale lock.

    Args:
        path: the lock file; its folder is created.
        what: what is locked, in words, for the error message.
    """

    def __init__(self, path: Path, what: str = "") -> None:
        self.path = path
        self.what = what or str(path.parent)
        self._handle: int | None = None

    def acquire(self, timeout_s: float = 0.0) -> None:
        """Take the lock, waiting at most ``timeout_s`` seconds.

        Raises:
            BusyError: another process holds it; the message names that process.
        """
        with storage_errors(self.path, doing="lock"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    owner = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
                    os.close(handle)
                    raise BusyError(
                        f"{self.what} is in use by {owner or 'another process'}. "
                        "Wait for it to end, stop it, or choose another folder."
                    ) from None
                time.sleep(0.02)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {os.uname().nodename}".encode(), 0)
        self._handle = handle

    def fileno(self) -> int:
        """The held lock's file descriptor; a child that inherits it shares the lock."""
        assert self._handle is not None, "the lock is not held"
        return self._handle

    def release(self) -> None:
        """Let go of the lock; the file stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FileLock:
        """Acquire without waiting, unless already held."""
        if self._handle is None:
            self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release."""
        self.release()
