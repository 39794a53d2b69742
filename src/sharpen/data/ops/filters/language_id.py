"""A filter by the language of a text."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch, Mask
from sharpen.data.language import BACKENDS, Detector, detector
from sharpen.data.ops.base import Filter, Miss, Statistics, one_of, operator
from sharpen.data.ops.filters.language_models import Stamp, file_digest, file_stamp

__all__ = ["Language"]


@functools.lru_cache(maxsize=8)
def _detector(backend: str, stamp: Stamp | None, languages: tuple[str, ...]) -> Detector:
    return detector(backend, model=stamp[0] if stamp else None, languages=languages)


@operator("language")
@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """Keeps texts that are surely in one of some languages."""

    languages: tuple[str, ...] = ("en",)
    """Codes of ISO 639-1."""

    min: float = 0.8
    """Least probability of the language, or share of letters of its script."""

    backend: str = "ngram"
    """``ngram`` or ``fasttext`` with a model, ``lingua``, ``pycld2``; ``script`` tells scripts."""

    model: str | None = None
    """File of the backends ``ngram`` and ``fasttext``."""

    def __post_init__(self) -> None:
        """Check that the backend is there and knows the languages."""
        if not self.languages:
            raise ConfigError("language needs languages: codes such as en.")
        one_of(self, "backend", BACKENDS)
        _detector(self.backend, self._stamp, tuple(self.languages))

    @property
    def _stamp(self) -> Stamp | None:
        if self.model is None:
            return None
        return file_stamp(self.model) if Path(self.model).is_file() else (self.model, 0, 0)

    def describe(self) -> dict[str, Any]:
        """With the content of the model, by which the result is told from another's."""
        stamp = self._stamp
        return {**super().describe(), "model": file_digest(stamp) if stamp else None}

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        found = _detector(self.backend, self._stamp, tuple(self.languages))
        codes, scores = found.detect(batch.texts)
        return {self.name: np.array(codes, object), "score": scores}

    def keep(self, statistics: Statistics) -> Mask:
        """See :class:`Filter`."""
        asked = np.isin(statistics[self.name].astype(str), self.languages)
        return asked & (statistics["score"] >= self.min)

    def miss(self, statistics: Statistics, row: int) -> Miss:
        """See :class:`Filter`."""
        code, score = statistics[self.name][row], float(statistics["score"][row])
        if code not in self.languages:
            return Miss(self.name, score, reason=f"its language is {code}")
        return Miss("score", score, f"min={self.min:g}")
