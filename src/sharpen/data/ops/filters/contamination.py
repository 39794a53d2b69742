"""Decontamination: rows that hold passages of an evaluation set.

Brown et al., "Language models are few-shot learners", NeurIPS 2020, appendix C: a text is
contaminated if it shares an n-gram of 13 words, in lower case without punctuation, with a test.
Tests with fewer words are looked for whole, if they have enough of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import ConfigError, DataError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Bound, Filter, Statistics, at_least, operator
from sharpen.data.ops.filters.language_models import Stamp, file_digest, file_stamp
from sharpen.data.remote import is_address
from sharpen.data.sources import FileSource
from sharpen.data.statistics import Words
from sharpen.data.statistics.repetition import listed_counts

__all__ = ["Decontaminate"]

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

_RADIX = np.uint64(0x9E3779B97F4A7C15)


def windows(words: Words, size: int) -> tuple[Integers, Hashes]:
    """Hashes of all runs of so many refined words.

    Returns:
        [n + 1] runs before each text, and their hashes; a text with fewer words has none.
    """
    kept = words.refined[words.refined != 0]
    counts = words.count_refined
    runs = np.maximum(counts - size + 1, 0)
    before = np.concatenate([[0], np.cumsum(runs)]).astype(np.int64)
    if not before[-1]:
        return before, np.zeros(0, np.uint64)
    whole = np.zeros(len(kept) - size + 1, np.uint64)
    for k in range(size):
        whole *= _RADIX
        whole += kept[k : k + len(whole)]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) - before[:-1]
    return before, whole[np.arange(before[-1]) + np.repeat(first, runs)]


@functools.lru_cache(maxsize=8)
def _passages(
    stamps: tuple[Stamp, ...], text_keys: tuple[str, ...], size: int, least: int
) -> dict[int, Hashes]:
    """Distinct hashes of the passages of evaluation sets, by their numbers of words."""
    found: dict[int, list[Hashes]] = {}
    for path, *_ in stamps:
        for key in text_keys:
            for given in FileSource(path, text_key=key):
                if given.left:
                    raise DataError(f"decontaminate: {given.left[0].reason}")
                words = given.rows.texts.words
                found.setdefault(size, []).append(windows(words, size)[1])
                counts = words.count_refined
                for short in np.unique(counts[(counts < size) & (counts >= least)]).tolist():
                    before, hashes = windows(words, short)
                    whole = np.nonzero(counts == short)[0]
                    found.setdefault(short, []).append(hashes[before[whole]])
    return {length: np.unique(np.concatenate(parts)) for length, parts in found.items()}


@operator("decontaminate")
@dataclass(frozen=True, kw_only=True)
class Decontaminate(Filter):
    """Drops rows that share a run of words with an evaluation set."""

    against: tuple[str, ...] = ()
    """Files of the evaluation sets: JSONL, Parquet or text."""

    text_keys: tuple[str, ...] = ("text",)
    """Where the texts of each evaluation set stand: question and answer, say."""

    size: int = 13
    """Words of a run."""

    least: int = 8
    """Words of the shortest test that is looked for whole."""

    max: float = 0
    """Most runs that a row may share."""

    def __post_init__(self) -> None:
        """Check that there is something to look for."""
        if not self.against:
            raise ConfigError("decontaminate needs against: files of evaluation sets.")
        at_least(self, 1, "size", "least")
        for path in self.against:
            if is_address(path):
                raise ConfigError(f"against: {path}: copy evaluation sets to this machine.")
            FileSource(path)

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        return (Bound(self.name, high=self.max),)

    @property
    def _stamps(self) -> tuple[Stamp, ...]:
        return tuple(
            file_stamp(str(file)) for path in self.against for file in FileSource(path).files
        )

    def describe(self) -> dict[str, Any]:
        """With what the files hold, not where they are."""
        return {**super().describe(), "against": [file_digest(one) for one in self._stamps]}

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`: how many runs of each row stand in an evaluation set."""
        words = batch.texts.words
        count = np.zeros(len(batch), np.int64)
        passages = _passages(self._stamps, tuple(self.text_keys), self.size, self.least)
        for length, listed in passages.items():
            before, hashes = windows(words, length)
            count += listed_counts(before, hashes, listed)[0]
        return {self.name: count}
