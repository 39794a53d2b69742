"""Filters by how good a classifier of yours finds a text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from sharpen.core.errors import ConfigError
from sharpen.data.batch import Batch
from sharpen.data.ops.base import Bound, Statistics, one_of, operator
from sharpen.data.ops.filters.language_models import FileModel, Stamp
from sharpen.data.quality import QualityModel

__all__ = ["QualityScore"]

_Keep = Literal["label", "pareto"]


@functools.lru_cache(maxsize=4)
def _quality(stamp: Stamp) -> QualityModel:
    return QualityModel.load(stamp[0])


@operator("quality_score")
@dataclass(frozen=True, kw_only=True)
class QualityScore(FileModel):
    """Probability that a text is good, by a model that ``sharpen.data.quality.train`` made.

    ``rule="pareto"`` is the rule of Brown et al., "Language Models are Few-Shot Learners", 2020,
    appendix A: a row stays if ``score > 1 - X`` for a draw X of Lomax's distribution (Pareto II)
    with ``P(X > x) = (1 + x)^-alpha``, so that some rows of every score stay.
    """

    min: float = 0.5
    """Least score to keep, with ``rule="label"``."""

    rule: _Keep = "label"
    """By the score alone, or by the score and a draw."""

    alpha: float = 9.0
    """Of the draw; less keeps more."""

    seed: int = 0
    """Of the draws, which depend on it and the row's id alone."""

    def __post_init__(self) -> None:
        """Check the rule."""
        super().__post_init__()
        one_of(self, "rule", get_args(_Keep))
        if not self.alpha > 0:
            raise ConfigError(f"alpha={self.alpha:g} must be above 0.")

    @property
    def bounds(self) -> Sequence[Bound]:
        """See :class:`Filter`."""
        if self.rule == "label":
            return super().bounds
        return (Bound("over_the_draw", 0.0),)

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        score = _quality(self.stamp).score(batch.texts)
        if self.rule == "label":
            return {self.name: score}
        return {self.name: score, "over_the_draw": score - 1 + self._draws(batch.ids)}

    def _draws(self, ids: pa.Array) -> npt.NDArray[np.float64]:
        hashes = [xxhash.xxh3_64_intdigest(id.encode(), self.seed) for id in ids.to_pylist()]
        uniform = (np.array(hashes, np.uint64) >> np.uint64(11)) / 2.0**53
        return (1 - uniform) ** (-1 / self.alpha) - 1
