"""Files at addresses: ``s3://``, ``gs://``, ``https://``, ``memory://`` and all else fsspec knows.

Rows are read while bytes come in; files of columns are first copied to a temporary file. A file's
version is what its server tells of it (ETag, times, checksums, size), else the hash of its bytes.
Credentials are those of the environment. A failing connection ends the run, which the same command
takes up again; it is never taken for the end of a file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from sharpen.core.errors import (
    DependencyNotInstalled,
    ExecutionError,
    MissingFileError,
    StorageError,
)

__all__ = ["RemoteFile", "is_address", "remote_files", "upload"]

_VERSIONS = (
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "content_md5", "checksum", "ino"),
    *("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "created"),
)
_MANIFEST = "manifest.json"
_CHUNK = 1 << 20


def is_address(path: str) -> bool:
    """Whether a path is an address and no file of this machine's folders."""
    return "://" in path


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        DependencyNotInstalled: fsspec, or the package of this kind of address, is missing.
        ConfigError: an unknown kind of address.
    """
    from sharpen.core.errors import ConfigError

    if importlib.util.find_spec("fsspec") is None:
        raise DependencyNotInstalled.for_feature(f"reading {address}", "remote")
    import fsspec

    kind = address.partition("://")[0]
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DependencyNotInstalled(f"{kind}:// needs another package: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{address}: {error}.") from None
    return found


@contextmanager
def _connection(address: str) -> Iterator[None]:
    """Errors of the other side, with the address."""
    try:
        yield
    except (MissingFileError, ExecutionError):
        raise
    except FileNotFoundError:
        raise MissingFileError(f"there is no {address}.") from None
    except PermissionError as error:
        raise MissingFileError(
            f"{address} may not be read: {error}. Set the credentials of its kind in the "
            "environment."
        ) from None
    except Exception as error:  # each file system has errors of its own
        raise ExecutionError(
            f"{address}: {type(error).__name__}: {error}. The same command goes on."
        ) from error


class _Stream(io.RawIOBase):
    """Bytes of another file, whose errors are never taken for damage of its contents."""

    def __init__(self, file: Any, address: str) -> None:
        self._file, self._address = file, address

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _connection(self._address):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; stands where a :class:`~pathlib.Path` of a local one may."""

    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part, without what follows a question mark."""
        return PurePosixPath(self.address.partition("?")[0]).name

    @property
    def suffix(self) -> str:
        """The last ending of the name."""
        return PurePosixPath(self.name).suffix

    def open(self, mode: str = "rb") -> BinaryIO:
        """Its bytes from the begin to the end.

        Raises:
            MissingFileError: it is not there, or may not be read.
            ExecutionError: the connection failed.
        """
        assert mode == "rb"
        system, path = _system(self.address)
        with _connection(self.address):
            # Servers that cannot send parts of a file send all of it.
            options = {"block_size": 0} if path.startswith(("http://", "https://")) else {}
            file = system.open(path, "rb", **options)
        return cast(BinaryIO, io.BufferedReader(_Stream(file, self.address), _CHUNK))

    def read(self) -> bytes:
        """All of its bytes."""
        with self.open() as file:
            return file.read()

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """A copy on this machine, for a while."""
        with tempfile.NamedTemporaryFile(suffix=self.suffix) as copy:
            with self.open() as file:
                shutil.copyfileobj(file, copy, _CHUNK)
            copy.flush()
            yield Path(copy.name)

    @property
    def size(self) -> int | None:
        """Bytes, if the other side tells."""
        system, path = _system(self.address)
        with _connection(self.address):
            return cast("int | None", system.info(path).get("size"))

    def version(self) -> list[Any]:
        """Plain data that changes when the file does."""
        system, path = _system(self.address)
        with _connection(self.address):
            told = system.info(path)
        marks = {key: str(told[key]) for key in _VERSIONS if told.get(key) is not None}
        if not marks:
            with self.open() as file:
                hashed = hashlib.sha256()
                while data := file.read(_CHUNK):
                    hashed.update(data)
            return [self.address, hashed.hexdigest()]
        return [self.address, told.get("size"), marks]


def remote_files(address: str) -> dict[str, RemoteFile]:
    """The files at an address: itself, all below a folder, or those of a pattern; sorted.

    Returns:
        By their places in the folder, or by their paths.

    Raises:
        MissingFileError: nothing is there.
        ExecutionError: the connection failed.
    """
    system, path = _system(address)
    folder = ""
    with _connection(address):
        if any(mark in path for mark in "*["):
            found = sorted(system.glob(path))
        elif address.endswith("/") or (not system.isfile(path) and system.isdir(path)):
            folder = path.rstrip("/") + "/"
            found = sorted(system.find(path))
        else:
            found = [path]
            system.info(path)
    if not found:
        raise MissingFileError(f"there is no file at {address}.")
    return {one.removeprefix(folder): RemoteFile(system.unstrip_protocol(one)) for one in found}


def upload(folder: Path, address: str) -> bool:
    """Copy a finished result to an address: its manifest goes last, and of an older one first.

    Args:
        folder: with a ``manifest.json``.
        address: of a folder.

    Returns:
        Whether anything was copied: the same result is left as it is.

    Raises:
        StorageError: it cannot be written there.
    """
    system, path = _system(address.rstrip("/"))
    target = f"{path}/{_MANIFEST}"
    manifest = (folder / _MANIFEST).read_bytes()
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _MANIFEST)
    names = [one.relative_to(folder).as_posix() for one in files]
    try:
        if system.exists(target):
            if system.cat_file(target) == manifest:
                return False
            system.rm(target)
        system.makedirs(path, exist_ok=True)
        old = set(system.find(path)) - {f"{path}/{name}" for name in names}
        for one in old:
            if PurePosixPath(one).name.startswith(("data-", "quarantine")):
                system.rm(one)
        for file, name in zip(files, names, strict=True):
            parent = f"{path}/{name}".rpartition("/")[0]
            system.makedirs(parent, exist_ok=True)
            system.put_file(str(file), f"{path}/{name}")
        system.pipe_file(target, manifest)
    except Exception as error:  # each file system has errors of its own
        raise StorageError(
            f"{address} cannot be written: {type(error).__name__}: {error}. The result is whole "
            f"in {folder}; the same command copies it again."
        ) from error
    return True
