"""One of two data sets that are compared: a result, or files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash

from sharpen.core.config import digest
from sharpen.data.sources import FileSource
from sharpen.data.trace import kept_ids

__all__ = ["Hashes", "Places", "Side", "hash_of"]

Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def hash_of(id: str) -> int:
    """Of an id, in 64 bits."""
    return xxhash.xxh3_64_intdigest(id.encode())


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

    def ids(self) -> Iterator[str]:
        """The number that each row of a result has in its source."""
        assert self.trace is not None
        for some in kept_ids(self.trace):
            yield from some

    def ids_at(self, places: Places) -> Iterator[str]:
        """Of some rows, whose places are in order."""
        if self.trace is None:
            yield from map(str, places.tolist())
            return
        start = 0
        for some in kept_ids(self.trace):
            low, high = np.searchsorted(places, [start, start + len(some)])
            yield from (some[place - start] for place in places[low:high].tolist())
            start += len(some)

    def hashes_at(self, places: Places) -> Hashes:
        """[n] hashes of the ids of some rows."""
        order = np.argsort(places, kind="stable")
        found = np.empty(len(places), np.uint64)
        found[order] = np.fromiter(map(hash_of, self.ids_at(places[order])), np.uint64, len(places))
        return found

    def events(self, kind: str) -> Iterator[tuple[list[str], list[str]]]:
        """Ids and operators of the rows that were ``dropped`` or ``edited``, some at a time."""
        if self.trace is None:
            return
        with pq.ParquetFile(self.trace / f"{kind}.parquet") as file:
            for batch in file.iter_batches(columns=["id", "operator"]):
                yield batch.column(0).to_pylist(), batch.column(1).to_pylist()

    def rows_at(self, places: Places) -> dict[int, tuple[str, dict[str, Any]]]:
        """Texts and other fields of some rows."""
        wanted = set(places.tolist())
        found: dict[int, tuple[str, dict[str, Any]]] = {}
        for one in self.source:
            if len(found) == len(wanted):
                break
            for i, number in enumerate(one.rows.ids.to_pylist()):
                if int(number) in wanted:
                    fields = {k: v for k, v in one.rows.fields[i].items() if k != self.text_key}
                    found[int(number)] = one.rows.texts.strings[i], fields
        return found
