"""Rows as tar files of samples, which WebDataset and :mod:`sharpen.data.tar` read."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sharpen.data.batch import str_of
from sharpen.data.tar import ANY, KEY_FIELD, KINDS, NUMBERS, TEXTS, parted

__all__ = ["TarShards"]

_ADDRESS = re.compile(r"^data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/]*={0,2})$")


class TarShards:
    """Writes rows as samples that :func:`tar_rows` reads back, in files of about so many bytes.

    A field whose name is an ending that stands for what it holds becomes a member of its own, and
    so does a ``data:`` address; all others are together in ``json``.

    Args:
        folder: where.
        shard_bytes: a file is closed when it has reached so many.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.names: list[str] = []
        self._folder, self._most = folder, shard_bytes
        self._file: tarfile.TarFile | None = None
        self._rows = 0
        self._last = ""

    def write(self, row: Mapping[str, Any]) -> None:
        """A row as a sample.

        Raises:
            TypeError: JSON cannot hold a field.
        """
        if self._file is None or self._file.offset >= self._most:
            self._file = self._next()
        key = row.get(KEY_FIELD)
        if not isinstance(key, str) or not _fits(key) or key == self._last:
            key = f"{self._rows:09d}"
            key += "-" if key == self._last else ""
        self._last = key
        self._rows += 1
        for ending, data in _members(row):
            info = tarfile.TarInfo(f"{key}.{ending}")
            info.size = len(data)
            self._file.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """End the last file; there is one at least."""
        if not self.names:
            self._file = self._next()
        if self._file is not None:
            self._file.close()
        self._file = None

    def _next(self) -> tarfile.TarFile:
        """Another file, the one before it ended."""
        if self._file is not None:
            self._file.close()
        self.names.append(f"data-{len(self.names):05d}.tar")
        return tarfile.open(self._folder / self.names[-1], "w", format=tarfile.PAX_FORMAT)


def _fits(key: str) -> bool:
    """Whether members of this stem are read back as one sample."""
    outside = key.startswith(("/", "\\")) or ".." in key.split("/") or "\0" in key
    return not outside and parted(f"{key}.x") == (key, "x")


def _members(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Endings and contents of a row's sample."""
    rest: dict[str, Any] = {}
    for name, value in row.items():
        made = None if name == KEY_FIELD else _member(name, value)
        if made is None:
            rest |= {} if name == KEY_FIELD else {name: value}
        else:
            yield made
    if rest:
        name = "json" if "json" not in row else "fields.json"
        yield name, _json(rest)


def _member(name: str, value: Any) -> tuple[str, bytes] | None:
    """A field as a member, if it is one."""
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        return None
    last = name.rpartition(".")[2]
    if isinstance(value, bytes):
        return (name if _opaque(last) else f"{name}.bin"), value
    if last == "json":
        return name, _json(value)
    if last in NUMBERS and type(value) is int:
        return name, str(value).encode()
    if not isinstance(value, str):
        return None
    address = _ADDRESS.match(value)
    if address is not None:
        kind, body = address[1], base64.b64decode(address[2])
        if _opaque(last) and KINDS.get(last, ANY) == kind:
            return name, body
        ending = next((end for end, one in KINDS.items() if one == kind), "bin")
        return f"{name}.{ending}", body
    return (name, value.encode()) if last in TEXTS else None


def _opaque(last: str) -> bool:
    """Whether an ending stands for bytes."""
    return last not in TEXTS and last not in NUMBERS and last != "json"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str_of).encode()
