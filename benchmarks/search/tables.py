"""Losses of real tasks at fixed configurations, and a model of them to search in.

An evaluation of these tasks is too dear, or its time too noisy, to be repeated for every method and
seed. So each task is evaluated once, at the first points of a scrambled Sobol sequence over its
space, and what methods search is a model of that table: the usual way of benchmarks of
hyper-parameters (Katharina Eggensperger et al., "Efficient Benchmarking of Hyperparameter
Optimizers via Surrogates", AAAI 2015). The tables are in ``benchmarks/data``; each says how it was
made. The model is a forest of extremely randomized trees; :func:`quality` tells how well it knows
configurations that are left out of the table.

    boosting-diabetes, boosting-breast-cancer    cross-validated losses of gradient boosting
    duckdb-tpch                                  CPU seconds of the 22 queries at scale 0.05, over
                                                 those under the default settings, which are timed
                                                 anew before every eighth row: the speed of a
                                                 machine that does other work drifts

    python -m benchmarks.search.tables [NAME ...]        makes the tables that are missing
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from benchmarks.common import machine

from sharpen.core.feedback import Feedback
from sharpen.core.parameters import Float
from sharpen.core.space import Space
from sharpen.problems.arch.proxy import Features

__all__ = ["TABLES", "Table", "load", "make", "quality"]

DATA = Path(__file__).resolve().parent.parent / "data"
_TREES = 60
_EVERY = 8  # rows between two measurements of the default, where seconds are measured


def _boosting(table: str) -> Any:
    from sharpen.problems.boosting import Boosting

    return Boosting(table)


def _duckdb() -> Any:
    from sharpen.problems.db.duckdb import DuckDB

    return DuckDB(0.05, repeats=3)


TABLES: dict[str, tuple[Callable[[], Any], int]] = {
    "boosting-diabetes": (lambda: _boosting("diabetes"), 1024),
    "boosting-breast-cancer": (lambda: _boosting("breast-cancer"), 1024),
    "duckdb-tpch": (_duckdb, 512),
}
"""How the problem of each is made, and the points of its table."""


def make(name: str) -> None:
    """Evaluate a task at its points and write its table."""
    from scipy.stats.qmc import Sobol

    maker, points = TABLES[name]
    problem = maker()
    space: Space = problem.space
    unit = Sobol(space.dimensions, scramble=True, rng=0).random(points)
    configs = [space.default(), *(_short(space, c) for c in space.decode(unit))]
    rows = []
    unit_loss = 1.0
    for i, config in enumerate(configs):
        if problem.objectives[0].unit == "s" and i % _EVERY == 0:
            unit_loss = _loss(problem, space.default()) or 1.0
        loss = _loss(problem, config)
        rows.append([*config.values(), None if loss is None else float(f"{loss / unit_loss:.6g}")])
    document = {
        "made_by": f"python -m benchmarks.search.tables {name}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {p: metadata.version(p) for p in ("scikit-learn", "duckdb", "scipy")},
        "objective": problem.objectives[0].name,
        "space": space.to_dict(),
        "columns": [*space, problem.objectives[0].name],
    }
    DATA.mkdir(exist_ok=True)
    head = json.dumps(document, indent=1)[:-2]
    body = ",\n".join(json.dumps(row) for row in rows)
    (DATA / f"search_{name}.json").write_text(f'{head},\n "rows": [\n{body}\n]}}\n')


def _loss(problem: Any, config: dict[str, Any]) -> float | None:
    """The objective; None where the evaluation failed."""
    outcome = problem.evaluate(config)
    values = outcome.objectives if isinstance(outcome, Feedback) else outcome
    return values.get(problem.objectives[0].name)


def _short(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its real numbers cut to what the table keeps of them."""
    for name, value in config.items():
        parameter = space[name]
        if isinstance(parameter, Float):
            config[name] = min(max(float(f"{value:.6g}"), parameter.low), parameter.high)
    return config


@dataclass(frozen=True)
class Table:
    """A table and the model of it."""

    space: Space
    configs: list[dict[str, Any]]
    losses: np.ndarray
    features: Features
    forest: Any

    def loss(self, config: dict[str, Any]) -> float:
        """What the model says of a configuration."""
        x = np.ascontiguousarray(self.features([config]), dtype=np.float32)
        return statistics.fmean(float(t.tree_.predict(x).item()) for t in self.forest.estimators_)


@cache
def load(name: str) -> Table:
    """The table of a name, with the model of it."""
    document = json.loads((DATA / f"search_{name}.json").read_text())
    space = Space.from_dict(document["space"])
    rows = [row for row in document["rows"] if row[-1] is not None]
    configs = [space.validate(dict(zip(space, row[:-1], strict=True))) for row in rows]
    losses = np.array([row[-1] for row in rows])
    features = Features(space)
    forest = _forest().fit(features(configs), losses)
    return Table(space, configs, losses, features, forest)


def _forest() -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=0)


def quality(name: str) -> dict[str, float]:
    """How the model does on what it has not seen, in five parts: R^2 and Spearman's rank."""
    from scipy.stats import spearmanr
    from sklearn.model_selection import cross_val_predict

    table = load(name)
    found = cross_val_predict(_forest(), table.features(table.configs), table.losses, cv=5)
    residual = float(((found - table.losses) ** 2).sum())
    total = float(((table.losses - table.losses.mean()) ** 2).sum())
    return {
        "rows": len(table.losses),
        "r2": 1 - residual / total,
        "rank": float(spearmanr(found, table.losses).statistic),
    }


def main() -> None:
    """Make what is missing."""
    for name in sys.argv[1:] or TABLES:
        if not (DATA / f"search_{name}.json").exists():
            make(name)
        print(name, quality(name), flush=True)


if __name__ == "__main__":
    main()
