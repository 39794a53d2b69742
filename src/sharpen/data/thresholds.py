"""Thresholds by search, on what an analysis measured: a trial costs milliseconds and reads no text.

Every end that a filter bounds is a knob: the share of rows that it cuts off, so that statistics of
any scale are searched alike. A trial's score is the mean quality of the rows that are left, in
standard deviations of all rows, and what is kept of the wanted share::

    score = (mean of the kept - mean of all) / deviation of all
            + weight min(1, kept / wanted)

so that a corpus of one perfect row is not the best. A model of your own is the last word: ``sharpen
tune recipe.yaml --over data.process.1.text_length.min=10:500`` trains one in each trial.
"""

from __future__ import annotations

import functools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.core.errors import ConfigError, DataError, MissingFileError, did_you_mean
from sharpen.core.parameters import Float
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study
from sharpen.data.ops.base import Bound
from sharpen.data.suggest import as_process

__all__ = ["Measured", "Searched", "ThresholdProblem", "load_measured", "search_thresholds"]

Floats = npt.NDArray[np.float64]

_MOST = 0.9  # share of rows that an end may cut off


@dataclass(frozen=True)
class Measured:
    """Values of all rows."""

    columns: Mapping[str, Floats]
    bounds: Mapping[str, Bound]
    """Which ends of which statistics filters bound."""


def load_measured(folder: str | Path) -> Measured:
    """What ``sharpen data analyze`` wrote.

    Raises:
        MissingFileError: no analysis is there.
        DataError: it is damaged.
    """
    folder = Path(folder)
    table, about = folder / "statistics.parquet", folder / "analysis.json"
    for path in (table, about):
        if not path.is_file():
            raise MissingFileError(f"{folder} holds no analysis; make one: sharpen data analyze.")
    try:
        found = pq.read_table(table)
        told = json.loads(about.read_text())["statistics"]
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds a damaged analysis: {error}.") from None
    columns, bounds = {}, {}
    for name, row in told.items():
        columns[name] = found.column(name).to_numpy().astype(np.float64)
        ends = row["bound"] or {}
        if any(value is not None for value in ends.values()):
            low, high = ends.get("min"), ends.get("max")
            bounds[name] = Bound(
                name, -math.inf if low is None else low, math.inf if high is None else high
            )
    return Measured(columns, bounds)


class ThresholdProblem:
    """Shares to cut off at each end; see the module's formula.

    Args:
        measured: values of all rows.
        quality: the statistic that says how good a row is; it is no knob.
        keep: wanted share of the rows.
        weight: of keeping it, against one standard deviation of quality.
        less_is_better: whether rows are better with less of it, as with perplexity.

    Raises:
        ConfigError: there is no such statistic, or nothing to set.
    """

    def __init__(
        self,
        measured: Measured,
        quality: str,
        *,
        keep: float = 0.5,
        weight: float = 1.0,
        less_is_better: bool = False,
    ) -> None:
        if quality not in measured.columns:
            raise ConfigError(
                f"no statistic '{quality}' was measured.{did_you_mean(quality, measured.columns)} "
                f"There are: {', '.join(measured.columns)}."
            )
        if not 0 < keep <= 1 or not weight >= 0:
            raise ConfigError(f"keep={keep:g} must be in (0, 1], weight={weight:g} at least 0.")
        values = np.nan_to_num(measured.columns[quality], nan=np.nan)
        fine = np.isfinite(values)
        spread = float(values[fine].std()) if fine.any() else 0.0
        if not spread:
            raise ConfigError(f"all rows have the same '{quality}'.")
        sign = -1.0 if less_is_better else 1.0
        self._quality = np.where(fine, sign * (values - values[fine].mean()) / spread, 0.0)
        self._keep, self._weight = keep, weight
        self.ends: dict[str, tuple[str, bool]] = {}
        self._ordered: dict[str, Floats] = {}
        self._columns = measured.columns
        for name, bound in measured.bounds.items():
            column = measured.columns[name]
            if name == quality or not np.isfinite(column).any() or np.ptp(column) == 0:
                continue
            self._ordered[name] = np.sort(column[np.isfinite(column)])
            for end, is_low in (("min", True), ("max", False)):
                if math.isfinite(bound.low if is_low else bound.high):
                    self.ends[f"{name}.{end}"] = (name, is_low)
        if not self.ends:
            raise ConfigError("no filter of the analysis bounds a statistic that varies.")
        self.name = "thresholds"
        self.space = Space({knob: Float(0.0, _MOST) for knob in self.ends})
        self.objectives: Sequence[Objective] = (Objective("score", "max"),)
        self.constraints: Sequence[Constraint] = ()

    def bounds(self, config: Mapping[str, Any]) -> dict[str, Bound]:
        """The thresholds that cut off the shares of a configuration."""
        found: dict[str, Bound] = {}
        for knob, (name, is_low) in self.ends.items():
            ordered, share = self._ordered[name], float(config[knob])
            place = min(int(share * len(ordered)), len(ordered) - 1)
            value = float(ordered[place if is_low else len(ordered) - 1 - place])
            before = found.get(name, Bound(name))
            found[name] = (
                Bound(name, value, before.high) if is_low else Bound(name, before.low, value)
            )
        return found

    def kept(self, bounds: Mapping[str, Bound]) -> npt.NDArray[np.bool_]:
        """[rows] which lie within all bounds."""
        held = [
            (self._columns[name] >= bound.low) & (self._columns[name] <= bound.high)
            for name, bound in bounds.items()
        ]
        found: npt.NDArray[np.bool_] = functools.reduce(np.logical_and, held)
        return found

    def evaluate(self, config: Mapping[str, Any], trial: TrialContext) -> dict[str, float]:
        """The score; see :class:`~sharpen.core.problem.Problem`."""
        return {"score": self.measure(config)["score"]}

    def measure(self, config: Mapping[str, Any]) -> dict[str, float]:
        """``score``, ``quality`` of the kept rows and share ``kept``."""
        keep = self.kept(self.bounds(config))
        share = float(keep.mean())
        quality = float(self._quality[keep].mean()) if share else float(self._quality.min())
        return {
            "score": quality + self._weight * min(1.0, share / self._keep),
            "quality": quality,
            "kept": share,
        }


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to."""

    process: list[dict[str, Any]]
    """Filters with the best thresholds, as in a recipe."""

    score: float
    quality: float
    """Standard deviations above the mean of all rows."""

    kept: float
    """Share of the rows."""

    trials: int


def search_thresholds(
    problem: ThresholdProblem, *, trials: int = 100, seed: int = 0, optimizer: str = "tpe"
) -> Searched:
    """Search; the first trial cuts off nothing.

    Raises:
        ConfigError: no such optimizer, or no trials.
    """
    with tempfile.TemporaryDirectory(prefix="sharpen-thresholds-") as folder:
        study = Study(
            problem,
            optimizer=optimizer,
            store=f"sqlite:///{folder}/study.db",
            budget=Budget(trials=trials),
            seed=seed,
        )
        study.enqueue(dict.fromkeys(problem.ends, 0.0))
        best = study.run().best
        count = len(study.trials())
    assert best is not None
    values = problem.measure(best.config)
    return Searched(process=as_process(problem.bounds(best.config)), trials=count, **values)
