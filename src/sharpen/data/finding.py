"""The data files at a path: a file, a folder, a pattern, or an address of such.

A folder that a data set was written to, or that Hugging Face's ``datasets`` saved, has files of
rows and others; only those of rows are found, in the order in which they were written.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from sharpen.core.errors import DataError, MissingFileError
from sharpen.data.remote import RemoteFile, is_address, remote_files

__all__ = [
    "COLUMNAR",
    "PACKED",
    "TEXTS",
    "File",
    "expanded",
    "find_files",
    "is_pattern",
    "kind_of",
    "matching_files",
]

File: TypeAlias = Path | RemoteFile
# fmt: off
_CODE = (
    ".c", ".cc", ".cpp", ".cs", ".css", ".cu", ".go", ".h", ".hpp", ".html", ".java", ".jl", ".js",
    ".kt", ".lua", ".php", ".pl", ".py", ".r", ".rb", ".rs", ".scala", ".sh", ".sql", ".swift",
    ".tex", ".ts",
)
# fmt: on
TEXTS = (".txt", ".md", ".rst", *_CODE)
COLUMNAR = (".parquet", ".arrow")
KNOWN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *COLUMNAR, ".tar", *TEXTS)
PACKED = (".gz", ".bz2", ".xz", ".zst")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_files(path: Path) -> list[Path]:
    """The data files at ``path``: itself, or those below a folder, sorted.

    Raises:
        MissingFileError: nothing there, or a folder without a readable file.
        DataError: a file of an unknown kind.
    """
    if path.is_dir() and (own := _rows_of(str(path), lambda name: _local(path / name))):
        return [path / name for name in own]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p) is not None)
        if not found:
            raise MissingFileError(f"{path} has no file of a known kind: {', '.join(KNOWN)}.")
        return found
    if not path.exists():
        raise MissingFileError(f"no such data file or folder: {path}")
    if kind_of(path) is None:
        raise DataError(f"{path} is of no known kind; known: {', '.join(KNOWN)}.")
    return [path]


def _local(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _rows_of(folder: str, read: Callable[[str], bytes | None]) -> list[str]:
    """The files of rows in a folder that also has others, in order; none where all are rows.

    Args:
        folder: for messages.
        read: the bytes of a file of the folder, or None if there is none.

    Raises:
        DataError: the data set has splits, of which one must be named, or rows in an order of
            their own.
    """
    manifest = _plain(read("manifest.json"))
    if "counted" in manifest and isinstance(manifest.get("files"), dict):
        return [name for name in manifest["files"] if name.startswith("data-")]
    splits = _plain(read("dataset_dict.json")).get("splits")
    if splits:
        told = ", ".join(map(str, splits))
        raise DataError(f"{folder} has the splits {told}: name one, such as {folder}/{splits[0]}.")
    state = _plain(read("state.json"))
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder} holds rows selected of others: call flatten_indices() before it is saved."
        )
    files = state.get("_data_files") or []
    return [Path(str(one.get("filename"))).name for one in files if isinstance(one, dict)]


def _plain(data: bytes | None) -> dict[str, Any]:
    """An object of JSON; nothing of anything else."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_pattern(path: str) -> bool:
    """Whether a path stands for those that fit it: ``*.jsonl``, ``shard-{000..099}.tar``."""
    return any(mark in path for mark in "*?[") or _RANGE.search(path) is not None


def expanded(path: str) -> list[str]:
    """A path for each number of its ranges, as ``{000..099}``."""
    found = _RANGE.search(path)
    if found is None:
        return [path]
    low, high = found.groups()
    numbers = range(int(low), int(high) + 1)
    each = (f"{path[: found.start()]}{n:0{len(low)}d}{path[found.end() :]}" for n in numbers)
    return [one for made in each for one in expanded(made)]


def matching_files(path: str | Path) -> list[File]:
    """The files at a path, which may be a folder, a pattern, or an address of such.

    Raises:
        MissingFileError: nothing is there.
        DataError: a file of an unknown kind.
        ExecutionError: the connection failed.
    """
    path = str(path)
    if (not is_pattern(path) and not is_address(path)) or Path(path).exists():
        return list(find_files(Path(path)))
    return list(itertools.chain.from_iterable(map(_matching, expanded(path))))


def _matching(path: str) -> list[File]:
    if is_address(path):
        files = remote_files(path)
        own = _rows_of(path.rstrip("/"), lambda name: files[name].read() if name in files else None)
        lost = next((name for name in own if name not in files), None)
        if lost is not None:
            raise MissingFileError(f"{path} lacks {lost}, which its list of files names.")
        found = [files[name] for name in own]
        found = found or [one for one in files.values() if kind_of(one) is not None]
        if not found:
            raise DataError(f"{path} has no file of a known kind: {', '.join(KNOWN)}.")
        return list(found)
    given = Path(path)
    base = Path(given.anchor or ".")
    below = sorted(base.glob(str(given.relative_to(base) if given.anchor else given)))
    return list(itertools.chain.from_iterable(map(find_files, below or [given])))


def kind_of(path: File) -> str | None:
    """The ending that says what a file holds, without that of its packing."""
    name = re.sub(r"\.tgz$", ".tar.gz", path.name.lower())
    packed = next((end for end in PACKED if name.endswith(end)), "")
    name = name.removesuffix(packed)
    kind = next((kind for kind in KNOWN if name.endswith(kind)), None)
    return None if packed and kind in COLUMNAR else kind
