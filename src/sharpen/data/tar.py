"""Samples of tar files, as WebDataset has them: members of one stem that follow each other.

``a/7.jpg``, ``a/7.txt`` and ``a/7.json`` are the sample ``a/7``; its row has ``__key__`` and a
field for each ending: text (``txt`` ...), a number (``cls`` ...), what JSON holds (``json``), and
all else as a ``data:`` address (RFC 2397), which operators of images and sounds read. Nothing is
unpacked to disk, and nothing is ever unpickled.

Archives come from others. A sample is refused, with the reason, if one of its members is a link, a
device or a sparse file, lies at an absolute path or above its folder, is too large, or is not what
its ending says. Reading ends, with a row that says so, where a header is damaged, the file breaks
off, or more comes out of a packed one than any honest text packs.

The format is that of POSIX.1-2001 (ustar, with pax headers) and of GNU tar's long names.
"""

from __future__ import annotations

import base64
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

__all__ = ["ANY", "KEY_FIELD", "KINDS", "NUMBERS", "TEXTS", "parted", "tar_rows"]

KEY_FIELD = "__key__"
TEXTS = frozenset({"txt", "text", "md", "html", "transcript", "caption"})
NUMBERS = frozenset({"cls", "cls2", "class", "count", "index", "inx", "id"})
# fmt: off
KINDS = {
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp",
    "gif": "image/gif", "bmp": "image/bmp", "tif": "image/tiff", "tiff": "image/tiff",
    "wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg",
    "opus": "audio/opus", "m4a": "audio/mp4", "mp4": "video/mp4", "webm": "video/webm",
}
# fmt: on
ANY = "application/octet-stream"
_BLOCK, _MOST_HEADER, _MOST_MEMBER, _MOST_SAMPLE = 512, 1 << 20, 256 << 20, 1 << 30
_MOST_MEMBERS = 1000  # of a sample
_DAMAGED = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$", re.DOTALL)

Located = tuple[str, dict[str, Any], str | None, str | None]


@dataclass(slots=True)
class _Member:
    name: str
    kind: bytes
    size: int
    sparse: bool = False


@dataclass(slots=True)
class _Sample:
    key: str
    row: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    size: int = 0

    def located(self, file: str) -> Located:
        where = f"{file}: {self.key!r:.200}"
        if self.error is not None:
            return where, {}, self.error, None
        return where, {KEY_FIELD: self.key, **self.row}, None, None


class _Reader:
    """Members of a stream, one after the other.

    Args:
        stream: the archive, unpacked.
        most: bytes after which it is taken for a bomb.
    """

    def __init__(self, stream: BinaryIO, most: int | None) -> None:
        self._stream, self._most, self._read = stream, most, 0

    def _take(self, size: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            EOFError: it breaks off.
        """
        data = self._stream.read(size)
        self._read += len(data)
        if len(data) < size:
            raise EOFError(f"it breaks off after {self._read} bytes")
        if self._most is not None and self._read > self._most:
            raise ValueError(f"more than {self._most} bytes come out of it")
        return data

    def skip(self, size: int) -> None:
        """Pass over the data of a member."""
        size += -size % _BLOCK
        while size > 0:
            size -= len(self._take(min(size, 1 << 20)))

    def data(self, size: int) -> bytes:
        """The data of a member."""
        return self._take(size + -size % _BLOCK)[:size]

    def __iter__(self) -> Iterator[_Member]:
        """Headers of members; the data of each must be taken before the next."""
        more: dict[str, str] = {}
        while True:
            header = self._stream.read(_BLOCK)
            self._read += len(header)
            if header == bytes(_BLOCK) or (not header and not more):
                return
            if len(header) < _BLOCK:
                raise EOFError(f"it breaks off after {self._read} bytes")
            member = _header(header, self._read - _BLOCK)
            if member.kind in (b"L", b"x"):
                if member.size > _MOST_HEADER:
                    raise ValueError(f"a name or header of {member.size} bytes")
                data = self.data(member.size)
                more |= {"path": _text(data)} if member.kind == b"L" else _pax(data)
            elif member.kind in (b"g", b"K"):
                self.skip(member.size)
            else:
                member.name = more.get("path", member.name)
                if "size" in more:
                    member.size = _whole(more["size"])
                member.sparse = member.kind == b"S" or any("sparse" in key for key in more)
                more = {}
                yield member


def _header(block: bytes, at: int) -> _Member:
    """A header of POSIX.1-1988 or GNU tar.

    Raises:
        ValueError: it is none.
    """
    told = block[148:156].split(b"\0")[0].strip()
    found = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if not told.isdigit() or int(told, 8) != found:
        raise ValueError(f"there is no header at byte {at}")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    size = block[124:136]
    if size[0] & 0x80:
        value = int.from_bytes(bytes([size[0] & 0x7F]) + size[1:])
    else:
        value = int(size.split(b"\0")[0].strip() or b"0", 8)
    kind = block[156:157]
    return _Member(name, kind, 0 if kind in b"123456" else value)


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "backslashreplace")


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"a size of {text!r:.40}")
    return int(text)


def _pax(data: bytes) -> dict[str, str]:
    """Records ``length key=value``.

    Raises:
        ValueError: they are none.
    """
    found = {}
    while data:
        length = _whole(data.partition(b" ")[0].decode("ascii", "replace"))
        record, data = data[:length], data[length:]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ValueError("a damaged pax header")
        found[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "backslashreplace")
    return found


def tar_rows(file: str, stream: BinaryIO, most: int | None = None) -> Iterator[Located]:
    """The samples of an archive, and what is wrong with those that cannot be read.

    Args:
        file: its name, for messages.
        stream: its bytes, unpacked.
        most: bytes after which it is taken for a bomb.
    """
    sample: _Sample | None = None
    reader = _Reader(stream, most)
    try:
        for member in reader:
            member.name = member.name.removeprefix("./")
            hidden = any(part[:1] == "." and part != ".." for part in member.name.split("/"))
            if member.kind == b"5" or hidden:
                reader.skip(member.size)
                continue
            key, ending = parted(member.name)
            if sample is not None and sample.key != key:
                yield sample.located(file)
                sample = None
            if sample is None:
                sample = _Sample(key)
            _add(sample, member, ending, reader)
    except _DAMAGED as error:
        lost = f" '{sample.key}' is lost." if sample is not None else ""
        yield file, {}, f"the archive is damaged from here on: {error}.{lost}", None
        return
    if sample is not None:
        yield sample.located(file)


def parted(name: str) -> tuple[str, str]:
    """The stem and the ending, which is empty for a name that has none."""
    found = _NAME.match(name)
    return (found[1], found[2].lower()) if found else (name, "")


def _add(sample: _Sample, member: _Member, ending: str, reader: _Reader) -> None:
    """A member to its sample; if it cannot be read the sample fails."""
    wrong = _refused(member, ending, sample)
    sample.size += member.size
    if wrong is not None or sample.error is not None:
        sample.error = sample.error or f"{member.name!r:.200} {wrong}."
        reader.skip(member.size)
        return
    data = reader.data(member.size)
    try:
        sample.row[ending] = _decoded(data, ending)
    except (ValueError, RecursionError) as error:
        sample.error = f"{member.name!r:.200} is not what its ending says: {error}."


def _refused(member: _Member, ending: str, sample: _Sample) -> str | None:
    parts = member.name.split("/")
    if member.name.startswith(("/", "\\")) or ".." in parts or "\0" in member.name:
        return "lies at an absolute path or above its folder"
    if member.kind in b"12":
        return "is a link"
    if member.kind not in (b"0", b"\0", b"7") or member.sparse:
        return "is no plain file"
    if member.size > _MOST_MEMBER:
        return f"has {member.size} bytes; {_MOST_MEMBER} are read"
    if sample.size + member.size > _MOST_SAMPLE:
        return f"makes its sample larger than {_MOST_SAMPLE} bytes"
    if len(sample.row) >= _MOST_MEMBERS:
        return f"is one of more than {_MOST_MEMBERS} members of its sample"
    if not ending:
        return "has no ending that names a field"
    if ending in sample.row or ending == KEY_FIELD:
        return f"is a second '{ending}' of its sample"
    return None


def _decoded(data: bytes, ending: str) -> Any:
    """What a member holds.

    Raises:
        ValueError: not what its ending says.
    """
    last = ending.rpartition(".")[2]
    if last in TEXTS:
        return data.decode("utf-8")
    if last in NUMBERS:
        return int(data.decode("ascii"))
    if last == "json":
        return json.loads(data.decode("utf-8"))
    kind = KINDS.get(last, ANY)
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
