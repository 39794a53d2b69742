"""What two data sets differ by: rows of one alone, rows edited, operators that did it, statistics.

Rows are matched by a field, else by their number in the source if both are results of the same
source (or one is the source itself), else by equal texts, where nothing counts as edited. Of rows
with equal keys the first meets the first, the second the second.

Each row becomes 40 bytes (hashes of its key, text and fields; its place), which go to one of 64
files on disk by the hash of the key; the files are joined one by one. In memory are the records of
one such file, and 16 to 32 bytes of each row that differs.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq
import xxhash

from sharpen.core.config import digest
from sharpen.core.errors import ConfigError, DataError
from sharpen.data.batch import Batch
from sharpen.data.sources import FileSource
from sharpen.data.trace import excerpt, kept_ids

__all__ = ["Difference", "Side", "diff"]

_FILES = 64
_RECORD = np.dtype([("key", "<u8", 2), ("text", "<u8"), ("fields", "<u8"), ("place", "<i8")])
_TEXT = 300  # code points of an example
_STATS = "stats"  # what filters measured is no field of a row
Records = npt.NDArray[Any]
Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
By = Literal["field", "row", "text"]


@dataclass
class Side:
    """One of two data sets.

    Args:
        path: a folder that ``sharpen data run`` wrote, or a file, folder, pattern or address.
        text_key: where a row's text stands.
    """

    path: str
    text_key: str = "text"

    def __post_init__(self) -> None:
        """Look what it is."""
        self.source = FileSource(self.path, text_key=self.text_key)
        self.trace: Path | None = None
        self.origin: str | None = None
        manifest = Path(self.path) / "manifest.json"
        try:
            told = json.loads(manifest.read_text())
            is_result = "counted" in told
        except (OSError, ValueError, TypeError):
            is_result = False
        if not is_result:
            self.origin = digest(self.source.fingerprint())
        elif (manifest.parent / "trace" / "kept.parquet").is_file():
            self.trace, self.origin = manifest.parent / "trace", told.get("source")

    def ids(self) -> Iterator[list[str]]:
        """The number that each row has in the source, some at a time."""
        if self.trace is not None:
            yield from kept_ids(self.trace)
        else:
            for one in self.source:
                yield one.rows.ids.to_pylist()

    def ids_at(self, places: Places) -> Iterator[str]:
        """Of some rows, whose places are in order."""
        if self.trace is None:
            yield from map(str, places.tolist())
            return
        start = 0
        for some in self.ids():
            low, high = np.searchsorted(places, [start, start + len(some)])
            yield from (some[place - start] for place in places[low:high].tolist())
            start += len(some)

    def hashes_at(self, places: Places) -> Hashes:
        """[n] hashes of the ids of some rows."""
        order = np.argsort(places, kind="stable")
        found = np.empty(len(places), np.uint64)
        found[order] = np.fromiter(map(_hash, self.ids_at(places[order])), np.uint64, len(places))
        return found

    def events(self, kind: str) -> Iterator[tuple[list[str], list[str]]]:
        """Ids and operators of the rows that were ``dropped`` or ``edited``, some at a time."""
        if self.trace is None:
            return
        with pq.ParquetFile(self.trace / f"{kind}.parquet") as file:
            for batch in file.iter_batches(columns=["id", "operator"]):
                yield batch.column(0).to_pylist(), batch.column(1).to_pylist()


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
        drops = _blame_drops(a, b, (alone[0], alone[1]), found, examples)
        edits = _blame_edits(a, b, pairs, found, examples)
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
    ids = _flat(side.ids()) if by == "row" and side.trace is not None else None
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


def _flat(parts: Iterator[list[str]]) -> Iterator[str]:
    for part in parts:
        yield from part


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


def _hash(id: str) -> int:
    return xxhash.xxh3_64_intdigest(id.encode())


def _events(side: Side, kind: str, wanted: Hashes) -> Iterator[tuple[Places, list[str], list[str]]]:
    """Of rows that were dropped or edited: which of the wanted ones, their ids and operators."""
    order = np.argsort(wanted, kind="stable")
    ordered = wanted[order]
    for ids, operators in side.events(kind):
        hashed = np.fromiter(map(_hash, ids), np.uint64, len(ids))
        near = np.minimum(np.searchsorted(ordered, hashed), max(len(ordered) - 1, 0))
        hit = np.nonzero(ordered[near] == hashed)[0] if len(ordered) else np.zeros(0, np.int64)
        chosen = hit.tolist()
        yield order[near[hit]], [ids[i] for i in chosen], [operators[i] for i in chosen]


def _blame_drops(
    a: Side, b: Side, alone: tuple[Places, Places], found: Difference, examples: int
) -> dict[str, str]:
    """Count the operators that dropped rows which only the other side has.

    Returns:
        Of the first rows, by the id.
    """
    told: dict[str, str] = {}
    for missing, has, places, name in ((a, b, alone[1], "a"), (b, a, alone[0], "b")):
        first = set(has.ids_at(places[:examples]))
        counts: Counter[str] = Counter()
        for _, ids, operators in _events(missing, "dropped", has.hashes_at(places)):
            counts.update(operators)
            told |= {id: one for id, one in zip(ids, operators, strict=True) if id in first}
        unknown = len(places) - counts.total()
        if unknown > 0:
            counts["not in its trace"] = unknown
        found.operators += [
            {"what": "dropped", "side": name, "operator": one, "rows": count}
            for one, count in counts.most_common()
        ]
    return told


def _blame_edits(a: Side, b: Side, pairs: Places, found: Difference, examples: int) -> list[str]:
    """Count the operators that edited a row on one side alone, or if there is none, on both.

    Returns:
        Of the first rows.
    """
    names: dict[str, int] = {}
    parts: list[Places] = [np.zeros((0, 3), np.int64)]
    for number, side in enumerate((a, b)):
        for rows, _, operators in _events(side, "edited", side.hashes_at(pairs[:, number])):
            codes = [names.setdefault(one, len(names)) for one in operators]
            columns = (rows, np.array(codes, np.int64), np.full(len(rows), number))
            parts.append(np.stack(columns, 1))
    events = np.unique(np.concatenate(parts), axis=0)  # row, operator, side
    with_next = np.zeros(len(events), bool)
    with_next[:-1] = (events[:-1, :2] == events[1:, :2]).all(1)
    on_both = with_next | np.roll(with_next, 1)
    explained = np.zeros(len(pairs), bool)
    explained[events[~on_both, 0]] = True
    events = events[~on_both | ~explained[events[:, 0]]]
    listed = list(names)
    kinds, counts = np.unique(events[:, 1:], axis=0, return_counts=True)
    found.operators += [
        {"what": "edited", "side": "ab"[side], "operator": listed[one], "rows": count}
        for count, (one, side) in sorted(
            zip(counts.tolist(), kinds.tolist(), strict=True), key=lambda row: -row[0]
        )
    ]
    told = []
    for row in range(min(examples, len(pairs))):
        mine = events[events[:, 0] == row, 1:].tolist()
        told.append(", ".join(f"{listed[one]} ({'ab'[side]})" for one, side in mine))
    return told


def _names(side: Side, places: Places, related: bool) -> list[str]:
    """Ids in the source, or places where there is no common one."""
    return list(side.ids_at(places)) if related else [str(place) for place in places.tolist()]


def _alone(
    side: Side, places: Places, drops: dict[str, str], related: bool
) -> list[dict[str, Any]]:
    rows = _rows_at(side, places)
    return [
        {"id": id, "dropped_by": drops.get(id), "text": rows[place][0][:_TEXT]}
        for id, place in zip(_names(side, places, related), places.tolist(), strict=True)
    ]


def _edited(
    a: Side, b: Side, pairs: Places, edits: Sequence[str], related: bool
) -> list[dict[str, Any]]:
    rows = _rows_at(a, pairs[:, 0]), _rows_at(b, pairs[:, 1])
    found = []
    for i, (id, (one, other)) in enumerate(
        zip(_names(a, pairs[:, 0], related), pairs.tolist(), strict=True)
    ):
        before, after = excerpt(rows[0][one][0], rows[1][other][0])
        found.append({"id": id, "edited_by": edits[i] if edits else None, "a": before, "b": after})
    return found


def _other_fields(a: Side, b: Side, pairs: Places) -> list[dict[str, Any]]:
    rows = _rows_at(a, pairs[:, 0]), _rows_at(b, pairs[:, 1])
    found = []
    for one, other in pairs.tolist():
        left, right = rows[0][one][1], rows[1][other][1]
        names = [k for k in {**left, **right} if left.get(k) != right.get(k) and k != _STATS]
        changed = {name: [left.get(name), right.get(name)] for name in names}
        found.append({"place": one, "fields": changed})
    return found


def _rows_at(side: Side, places: Places) -> dict[int, tuple[str, dict[str, Any]]]:
    """Texts and other fields of some rows."""
    wanted = set(places.tolist())
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for one in side.source:
        if len(found) == len(wanted):
            break
        for i, number in enumerate(one.rows.ids.to_pylist()):
            if int(number) in wanted:
                fields = {k: v for k, v in one.rows.fields[i].items() if k != side.text_key}
                found[int(number)] = one.rows.texts.strings[i], fields
    return found
