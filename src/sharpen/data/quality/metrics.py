"""How well scores between 0 and 1 tell two classes apart, and whether they are probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DataError

__all__ = ["Metrics", "evaluate"]

_BINS = 10


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of texts that training has not seen."""

    texts: int

    auc: float
    """Share of pairs of a good and a bad text in which the good one scores more; ties are half."""

    accuracy: float
    """Share of texts whose score is on the right side of 0.5."""

    log_loss: float
    """Mean of -log p of the right class, nats."""

    calibration_error: float
    """Mean distance of score and share of good texts over 10 equal bins, by texts in each."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def evaluate(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> Metrics:
    """Judge scores.

    Args:
        scores: [n] in [0, 1].
        labels: [n] which are good.

    Raises:
        DataError: a class has no text.
    """
    good = int(labels.sum())
    bad = len(labels) - good
    if not good or not bad:
        raise DataError(f"{good} good and {bad} bad texts cannot be told apart; give some of both.")
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[which]  # mean rank of those that are equal
    auc = (rank[labels].sum() - good * (good + 1) / 2) / (good * bad)
    right = np.clip(np.where(labels, scores, 1 - scores), 1e-15, 1)
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(bins, scores - labels, _BINS)
    return Metrics(
        texts=len(labels),
        auc=float(auc),
        accuracy=float(((scores > 0.5) == labels).mean()),
        log_loss=float(-np.log(right).mean()),
        calibration_error=float(np.abs(gap).sum() / len(labels)),
    )
