"""What two data sets differ by: rows of one alone, rows edited, operators that did it, statistics.

Rows are matched by a field, else by their number in the source if both are results of the same
source (or one is the source itself), else by equal texts, where nothing counts as edited. Of rows
with equal keys the first meets the first, the second the second.

Each row becomes 40 bytes (hashes of its key, text and fields; its place), which go to one of 64
files on disk by the hash of the key; the files are joined one by one. In memory are the records of
one such file, and 16 to 32 bytes of each row that differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.batch import Batch
from sharpen.data.diff.blame import blame_drops, blame_edits
from sharpen.data.diff.side import Places, Side
from sharpen.data.trace import excerpt

__all__ = ["Difference", "diff"]

_FILES = 64
_RECORD = np.dtype([("key", "<u8", 2), ("text", "<u8"), ("fields", "<u8"), ("place", "<i8")])
_TEXT = 300  # code points of an example
_STATS = "stats"  # what filters measured is no field of a row
Records = npt.NDArray[Any]
By = Literal["field", "row", "text"]


@dataclass
class Difference:
    """What two data sets differ by."""

    by: By
    rows: tuple[int, int] = (0, 0)
    bad: tuple[int, int] = (0, 0)
    """Rows that cannot be read."""

    same: int = 0
    """Rows with equal texts on both sides."""

    other_fields: int = 0
    """Of these, rows of which another field differs."""

    edited: int = 0
    """Rows with the same key and another text."""

    only: tuple[int, int] = (0, 0)
    """Rows that are on one side alone."""

    operators: list[dict[str, Any]] = field(default_factory=list)
    """``what`` (dropped or edited), ``side``, ``operator`` and ``rows``."""

    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """``only_a``, ``only_b``, ``edited`` and ``other_fields``."""


def diff(
    a: Side,
    b: Side,
    *,
    key: str | None = None,
    examples: int = 5,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Difference:
    """Compare two data sets.

    Args:
        a: one.
        b: the other.
        key: a field by which rows are matched; ``a.b`` is ``b`` of the object ``a``.
        examples: of each kind, the first rows.
        on_rows: is told of rows that are read.

    Raises:
        DataError: a row without the key.
        ConfigError: an argument is out of range.
    """
    if examples < 0:
        raise ConfigError(f"examples={examples} must not be negative.")
    related = a.origin is not None and a.origin == b.origin
    by: By = "field" if key is not None else "row" if related else "text"
    found = Difference(by)
    only: tuple[list[Places], list[Places]] = ([], [])
    edited: list[Places] = []
    others: list[Places] = []
    with tempfile.TemporaryDirectory() as folder:
        counts = [
            _part(side, by, key, Path(folder) / name, on_rows)
            for side, name in ((a, "a"), (b, "b"))
        ]
        found.rows = (counts[0][0], counts[1][0])
        found.bad = (counts[0][1], counts[1][1])
        for number in range(_FILES):
            sides = [np.fromfile(Path(folder) / f"{n}{number}", _RECORD) for n in ("a", "b")]
            _join(sides[0], sides[1], only, edited, others, found)
    alone = tuple(np.sort(np.concatenate(places)) for places in only)
    pairs = _in_order(edited)
    found.only = (len(alone[0]), len(alone[1]))
    found.edited = len(pairs)
    drops: dict[str, str] = {}
    edits: list[str] = []
    if related:
        found.operators, drops = blame_drops(a, b, (alone[0], alone[1]), examples)
        told, edits = blame_edits(a, b, pairs, examples)
        found.operators += told
    pairs, rest = pairs[:examples], _in_order(others)[:examples]
    for n, name in enumerate(("a", "b")):
        found.examples[f"only_{name}"] = _alone((a, b)[n], alone[n][:examples], drops, related)
    found.examples["edited"] = _edited(a, b, pairs, edits, related)
    found.examples["other_fields"] = _other_fields(a, b, rest)
    return found


def _in_order(pairs: Sequence[Places]) -> Places:
    """[n, 2] places on both sides."""
    whole = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    return whole[np.argsort(whole[:, 0], kind="stable")]


def _part(
    side: Side, by: By, key: str | None, prefix: Path, on_rows: Callable[[int], None]
) -> tuple[int, int]:
    """Write the records of a side to files by their keys; rows, and rows that cannot be read."""
    rows = bad = 0
    ids = side.ids() if by == "row" and side.trace is not None else None
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(Path(f"{prefix}{n}").open("wb")) for n in range(_FILES)
        ]
        for one in side.source:
            bad += len(one.left)
            rows += len(one.rows)
            records = _records(one.rows, by, key, side, ids)
            place = (records["key"][:, 0] % _FILES).astype(np.int64)
            order = np.argsort(place, kind="stable")
            edges = np.searchsorted(place[order], np.arange(_FILES + 1))
            for n in np.unique(place).tolist():
                files[n].write(records[order[edges[n] : edges[n + 1]]].tobytes())
            on_rows(len(one.rows) + len(one.left))
    return rows, bad


def _records(
    batch: Batch, by: By, key: str | None, side: Side, ids: Iterator[str] | None
) -> Records:
    found = np.empty(len(batch), _RECORD)
    texts, numbers = batch.texts.strings, batch.ids.to_pylist()
    keys: Sequence[Any] = texts
    if by == "field":
        assert key is not None
        keys = batch.field(key)
        missing = next((i for i, value in enumerate(keys) if value is None), None)
        if missing is not None:
            names = ", ".join(batch.fields[missing]) or "none"
            raise DataError(f"{side.path}: row {numbers[missing]} has no '{key}'; found: {names}.")
    elif by == "row":
        keys = numbers if ids is None else [next(ids) for _ in numbers]
    for i, (text, fields) in enumerate(zip(texts, batch.fields, strict=True)):
        rest = {k: v for k, v in fields.items() if k not in (_STATS, side.text_key)}
        packed = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS, default=str)
        hashed = xxhash.xxh3_128_intdigest(str(keys[i]).encode("utf-8", "surrogatepass"))
        found["key"][i] = hashed & 0xFFFFFFFFFFFFFFFF, hashed >> 64
        found["text"][i] = xxhash.xxh3_64_intdigest(text.encode())
        found["fields"][i] = xxhash.xxh3_64_intdigest(packed)
    found["place"] = [int(number) for number in numbers]
    return found


def _join(
    a: Records,
    b: Records,
    only: tuple[list[Places], list[Places]],
    edited: list[Places],
    others: list[Places],
    found: Difference,
) -> None:
    """Match the records of one file of each side."""
    both = np.concatenate([a, b])
    side = np.repeat([0, 1], [len(a), len(b)])
    _, name = np.unique(both["key"], axis=0, return_inverse=True)
    name = name.reshape(-1)
    order = np.lexsort((both["place"], side, name))
    name, side, both = name[order], side[order], both[order]
    group = name * 2 + side
    begins = np.nonzero(np.diff(group, prepend=-1))[0]
    rank = np.arange(len(group)) - np.repeat(begins, np.diff([*begins, len(group)]))
    order = np.lexsort((side, rank, name))
    name, side, both, rank = name[order], side[order], both[order], rank[order]
    pair = np.zeros(len(name), bool)
    pair[:-1] = (name[:-1] == name[1:]) & (rank[:-1] == rank[1:])
    first = np.nonzero(pair)[0]
    second = first + 1
    alone = np.ones(len(name), bool)
    alone[first] = alone[second] = False
    for number in (0, 1):
        only[number].append(both["place"][alone & (side == number)])
    places = np.stack([both["place"][first], both["place"][second]], 1)
    changed = both["text"][first] != both["text"][second]
    differ = ~changed & (both["fields"][first] != both["fields"][second])
    edited.append(places[changed])
    others.append(places[differ])
    found.same += int((~changed).sum())
    found.other_fields += int(differ.sum())


def _names(side: Side, places: Places, related: bool) -> list[str]:
    """Ids in the source, or places where there is no common one."""
    return list(side.ids_at(places)) if related else [str(place) for place in places.tolist()]


def _alone(
    side: Side, places: Places, drops: dict[str, str], related: bool
) -> list[dict[str, Any]]:
    rows = side.rows_at(places)
    return [
        {"id": id, "dropped_by": drops.get(id), "text": rows[place][0][:_TEXT]}
        for id, place in zip(_names(side, places, related), places.tolist(), strict=True)
    ]


def _edited(
    a: Side, b: Side, pairs: Places, edits: Sequence[str], related: bool
) -> list[dict[str, Any]]:
    rows = a.rows_at(pairs[:, 0]), b.rows_at(pairs[:, 1])
    found = []
    for i, (id, (one, other)) in enumerate(
        zip(_names(a, pairs[:, 0], related), pairs.tolist(), strict=True)
    ):
        before, after = excerpt(rows[0][one][0], rows[1][other][0])
        found.append({"id": id, "edited_by": edits[i] if edits else None, "a": before, "b": after})
    return found


def _other_fields(a: Side, b: Side, pairs: Places) -> list[dict[str, Any]]:
    rows = a.rows_at(pairs[:, 0]), b.rows_at(pairs[:, 1])
    found = []
    for one, other in pairs.tolist():
        left, right = rows[0][one][1], rows[1][other][1]
        names = [k for k in {**left, **right} if left.get(k) != right.get(k) and k != _STATS]
        changed = {name: [left.get(name), right.get(name)] for name in names}
        found.append({"place": one, "fields": changed})
    return found
