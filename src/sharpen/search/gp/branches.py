"""In spaces with conditions: which losses are bent, and what every other step has to gain.

::

    bent   where max y - median y > 15 (median y - min y) over trials apart
    apart  in the order of their numbers those that differ by more than 0.1 in a feature from
           each one before them that is apart
    gain   every other step maximizes the log EI beyond the best loss less 0.01 standard deviations

A condition parts a space into branches with parameters of their own. Once the best of a branch is
found, most trials lie next to it: their losses look skewed, and bending them would make those of
all other branches seem alike and sure, as if nothing could be found there. Trials apart tell
whether the losses themselves are skewed. And there is always a little left to gain beside the best
trial, in the sixth digit, which would keep a search in its branch for good; a step that has to gain
a hundredth looks elsewhere instead.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["GAIN", "are_tailed", "has_to_gain"]

Floats = npt.NDArray[np.float64]

GAIN = 0.01
"""In standard deviations of the losses."""

_APART = 0.1
_TAIL = 15.0


def has_to_gain(step: int) -> bool:
    """Whether the step after ``step`` trials has to gain something."""
    return step % 2 == 0


def are_tailed(features: Floats, losses: Floats) -> bool:
    """Whether the worst losses are far beyond the others, of trials apart.

    Args:
        features: [n, p] of the trials, in the order of their numbers.
        losses: [n] of them.
    """
    apart: list[int] = []
    for row in range(len(features)):
        gap = np.abs(features[apart] - features[row]).max(axis=1)
        if (gap > _APART).all():
            apart.append(row)
    known = losses[apart]
    middle = float(np.median(known))
    return bool(known.max() - middle > _TAIL * (middle - known.min()))
