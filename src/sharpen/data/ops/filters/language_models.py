"""Filters by what a language model of yours says of a text."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.core.files import sha256_file
from sharpen.data.batch import Batch
from sharpen.data.ngram.model import NgramModel, load_model
from sharpen.data.ops.base import Range, Statistics, operator

__all__ = ["FileModel", "Perplexity", "Stamp", "file_digest", "file_stamp"]

Stamp = tuple[str, int, int]


def file_stamp(path: str) -> Stamp:
    """Name, time and size of a file: what tells it from what stood there before."""
    state = Path(path).stat()
    return path, state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=64)
def file_digest(stamp: Stamp) -> str:
    """What a file of a stamp holds."""
    return f"sha256:{sha256_file(Path(stamp[0]))}"


@dataclass(frozen=True, kw_only=True)
class FileModel(Range):
    """A filter that asks a model of a file."""

    model: str = ""
    """The model's file."""

    def __post_init__(self) -> None:
        """Check that the file is there."""
        super().__post_init__()
        if not self.model:
            raise ConfigError(f"{self.name} needs model: the file of a trained model.")
        if not Path(self.model).is_file():
            raise MissingFileError(f"{self.name}: there is no model {self.model}.")

    @property
    def stamp(self) -> Stamp:
        """Of the model's file."""
        return file_stamp(self.model)

    def describe(self) -> dict[str, Any]:
        """With the content of the model, by which the result is told from another's."""
        return {**super().describe(), "model": file_digest(self.stamp)}


@functools.lru_cache(maxsize=4)
def _ngram(stamp: Stamp) -> NgramModel:
    return load_model(stamp[0])


@operator("perplexity")
@dataclass(frozen=True, kw_only=True)
class Perplexity(FileModel):
    """Perplexity under a language model of n-grams, to one decimal; 0 for a text without words.

    The model is one that ``sharpen.data.ngram.train`` made, or an ARPA file.
    """

    max: float = 1500
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: _ngram(self.stamp).perplexities(batch.texts)}
