"""Filters by what the lines of a text are: short, bullets, cut off, without an end, said twice.

Shares are of the lines that are not blank; those of a text without lines are 0. Single rules of
Gopher, C4 and FineWeb (:mod:`sharpen.data.ops.filters.web`), to be combined with other bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sharpen.data.batch import Batch
from sharpen.data.ops.base import Range, Statistics, at_least, operator
from sharpen.data.statistics import Pieces, repeated_pieces
from sharpen.data.statistics.sentences import sentence_ends

__all__ = [
    "BULLETS",
    "ELLIPSES",
    "BulletLines",
    "DuplicateLines",
    "EllipsisLines",
    "LinesNumber",
    "PunctuatedLines",
    "ShortLines",
    "share_of_lines",
]

BULLETS = ("-", "•")
ELLIPSES = ("...", "…")

_ENDS = np.array(sorted(sentence_ends()), np.uint32)


def share_of_lines(lines: Pieces, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """[n] share of the lines of each text that are some; 0 without lines."""
    return lines.total(which) / np.maximum(lines.count, 1)


def punctuated(lines: Pieces) -> npt.NDArray[np.bool_]:
    """[lines] whose last character ends a sentence."""
    return np.isin(lines.last, _ENDS)


def _filled(batch: Batch) -> Pieces:
    lines = batch.texts.lines
    return lines.where(~lines.blank)


@operator("lines_num")
@dataclass(frozen=True, kw_only=True)
class LinesNumber(Range):
    """Lines that are not blank."""

    min: float = 1
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        return {self.name: _filled(batch).count}


@operator("short_lines")
@dataclass(frozen=True, kw_only=True)
class ShortLines(Range):
    """Share of lines of few characters: menus, tables, lists."""

    max: float = 0.67
    """Greatest value to keep."""

    length: int = 30
    """Code points of the longest short line."""

    def __post_init__(self) -> None:
        """Check the length."""
        super().__post_init__()
        at_least(self, 1, "length")

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        lines = _filled(batch)
        return {self.name: share_of_lines(lines, lines.lengths <= self.length)}


@operator("punctuated_lines")
@dataclass(frozen=True, kw_only=True)
class PunctuatedLines(Range):
    """Share of lines that end with what ends a sentence (Unicode's Sentence_Terminal)."""

    min: float = 0.12
    """Least value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        lines = _filled(batch)
        return {self.name: share_of_lines(lines, punctuated(lines))}


@operator("bullet_lines")
@dataclass(frozen=True, kw_only=True)
class BulletLines(Range):
    """Share of lines that begin with ``-`` or ``•``."""

    max: float = 0.9
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        lines = _filled(batch)
        return {self.name: share_of_lines(lines, lines.begins_with(batch.texts.data, *BULLETS))}


@operator("ellipsis_lines")
@dataclass(frozen=True, kw_only=True)
class EllipsisLines(Range):
    """Share of lines that end with an ellipsis: previews cut off."""

    max: float = 0.3
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        lines = _filled(batch)
        return {self.name: share_of_lines(lines, lines.ends_with(batch.texts.data, *ELLIPSES))}


@operator("duplicate_lines")
@dataclass(frozen=True, kw_only=True)
class DuplicateLines(Range):
    """Share of lines that stood in the text before."""

    max: float = 0.3
    """Greatest value to keep."""

    def measure(self, batch: Batch) -> Statistics:
        """See :class:`Filter`."""
        lines = _filled(batch)
        count, _ = repeated_pieces(lines)
        return {self.name: count / np.maximum(lines.count, 1)}
