"""The data files at a path: a file, a folder, a pattern, or an address of such.

A folder that a data set was written to, or that Hugging Face's ``datasets`` saved, has files of
rows and others; only those of rows are found, in the order in which they were written.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TypeAlias

from sharpen.core.errors import DataError, MissingFileError
from sharpen.data.remote import RemoteFile, is_address, remote_files, rows_of

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
    if path.is_dir() and (own := _written(path) or _saved(path)):
        return own
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


def _written(folder: Path) -> list[Path]:
    """The files of rows in a folder that a data set was written to; its other files are no rows."""
    try:
        manifest = (folder / "manifest.json").read_bytes()
    except OSError:
        return []
    return [folder / name for name in rows_of(manifest)]


def _saved(folder: Path) -> list[Path]:
    """The files of a data set that ``datasets`` saved.

    Raises:
        DataError: it has splits, of which one must be named, or rows in an order of their own.
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        told = ", ".join(sorted(p.parent.name for p in folder.glob("*/state.json")))
        raise DataError(f"{folder} has the splits {told}: name one, such as {folder}/train.")
    try:
        state = json.loads((folder / "state.json").read_text())
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder} holds rows selected of others: call flatten_indices() before it is saved."
        )
    return [folder / Path(name).name for name in names]


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
        found = [one for one in remote_files(path) if kind_of(one) is not None]
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
