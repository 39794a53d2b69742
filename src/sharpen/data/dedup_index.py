"""What earlier runs kept, on disk, so that new data is compared with it: one entry a run.

::

    INDEX/about.json       the operator and the arguments that decide what is remembered
          <run>.arrow      ids of the rows that stayed, and what is remembered of each

An entry has the address of its run, so that the same run again replaces its own entry and does not
find itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sharpen.core.errors import ConfigError, DataError, storage_errors
from sharpen.core.files import atomic_write_bytes, atomic_write_json
from sharpen.data.batch import ID
from sharpen.data.corpus import KEY, Corpus, as_array

__all__ = ["DedupIndex", "WithEarlier", "write_entry"]

_ABOUT = "about.json"
Integers = npt.NDArray[np.int64]


class DedupIndex:
    """A folder of entries.

    Args:
        folder: where; made when something is kept.
        about: what must be the same for entries to be comparable.
        own: the address of this run, whose entry is not looked at.

    Raises:
        ConfigError: the folder is the index of another operator or other arguments.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], own: str) -> None:
        self.folder, self.about, self.own = folder, dict(about), own
        path = folder / _ABOUT
        if path.exists():
            try:
                known = json.loads(path.read_text())
            except ValueError as error:
                raise DataError(f"{path} is damaged: {error}.") from None
            differing = sorted(
                key for key in {*known, *self.about} if known.get(key) != self.about.get(key)
            )
            if differing:
                told = ", ".join(
                    f"{key}={known.get(key)!r} there, {self.about.get(key)!r} here"
                    for key in differing
                )
                raise ConfigError(f"{folder} is the index of something else: {told}.")
        elif folder.exists() and (not folder.is_dir() or any(folder.glob("*.arrow"))):
            raise ConfigError(f"{folder} is no index; choose another folder.")

    def entries(self) -> list[Path]:
        """Of other runs, in order of their addresses."""
        return [path for path in sorted(self.folder.glob("*.arrow")) if path.stem != self.own]

    def fingerprint(self) -> list[str]:
        """Plain data that changes when there are other entries."""
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.entries()]

    def read(self) -> list[pa.RecordBatch]:
        """The rows of all entries, their ids as ``run:id``.

        Raises:
            DataError: an entry is damaged.
        """
        found = []
        for path in self.entries():
            try:
                with pa.memory_map(str(path)) as source:
                    rows = pa.ipc.open_file(source).get_batch(0)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is damaged: {error}.") from None
            ids = pa.array([f"{path.stem}:{id}" for id in rows.column(ID).to_pylist()], pa.string())
            found.append(rows.set_column(rows.schema.get_field_index(ID), ID, ids))
        return found

    def keep(self, entry: Path) -> None:
        """Put the entry of this run in its place.

        Raises:
            StorageError: the disk is full, or may not be written.
        """
        with storage_errors(self.folder, doing="write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write_json(self.folder / _ABOUT, self.about)
            atomic_write_bytes(self.folder / f"{self.own}.arrow", entry.read_bytes())


def write_entry(path: Path, rows: Corpus, kept: Integers) -> None:
    """Write ids and what is remembered of some rows, as an entry."""
    columns = rows.take(kept, keys=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, columns.schema) as writer:
        writer.write(columns)
    atomic_write_bytes(path, sink.getvalue())


class WithEarlier(Corpus):
    """The rows of a corpus, and behind them those that earlier runs kept.

    Of earlier rows there are no texts.
    """

    def __init__(self, rows: Corpus, earlier: list[pa.RecordBatch]) -> None:
        super().__init__(rows.parts, rows.own)
        self._earlier = earlier
        self.new = int(self.starts[-1])
        """Rows of the corpus."""

    def __len__(self) -> int:
        """Number of rows, earlier ones too."""
        return self.new + sum(int(batch.num_rows) for batch in self._earlier)

    @property
    def earlier_ids(self) -> list[str]:
        """Of the rows behind."""
        return [id for batch in self._earlier for id in batch.column(ID).to_pylist()]

    def column(self, name: str) -> npt.NDArray[Any]:
        """See :class:`Corpus`."""
        parts = [as_array(batch.column(KEY + name)) for batch in self._earlier]
        mine = super().column(name)
        return np.concatenate([mine, *parts]) if len(mine) or not parts else np.concatenate(parts)

    def gather(self, name: str, rows: Integers) -> npt.NDArray[Any]:
        """See :class:`Corpus`."""
        old = np.concatenate([as_array(batch.column(KEY + name)) for batch in self._earlier])
        found = old[np.maximum(rows - self.new, 0)]
        mine = np.nonzero(rows < self.new)[0]
        if len(mine):
            found[mine] = super().gather(name, rows[mine])
        return found
