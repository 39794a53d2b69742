"""Rows as operators that must know them all are given them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from sharpen.data.batch import ID, TEXT, Batch
from sharpen.data.corpus import KEY, Corpus
from sharpen.data.ops import Deduplicator
from sharpen.data.ops.barrier import Barrier
from sharpen.data.parts import Counted, Parts
from sharpen.data.trace import Trace


def batch_of(texts: list[str], start: int = 0) -> Batch:
    ids = pa.array([str(start + i) for i in range(len(texts))], pa.string())
    return Batch(pa.RecordBatch.from_pydict({ID: ids, TEXT: pa.array(texts, pa.large_string())}))


def corpus_of(folder: Path, op: Barrier, texts: list[str], size: int = 100) -> Corpus:
    """The texts in parts of so many rows."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = Parts(folder)
    for number, start in enumerate(range(0, len(texts), size)):
        batch = batch_of(texts[start : start + size], start)
        table = batch.table
        for name, column in op.keys(batch).items():
            table = table.append_column(KEY + name, column)
        parts.write(number, table, Trace(), Counted())
    return Corpus(parts)


def stays(folder: Path, op: Deduplicator, texts: list[str]) -> list[int]:
    """The row that stays in place of each."""
    rows = corpus_of(folder, op, texts)
    found: list[int] = op.copies(rows, np.arange(len(texts))).of.tolist()
    return found
