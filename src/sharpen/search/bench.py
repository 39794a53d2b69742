"""Which optimizer for which problem: several on equal budgets, over seeds, with a test.

For each problem, the optimizer of the best median after all trials is the best one; another is
*behind* where the two-sided Mann-Whitney test of their seeds' best values says so at 5 %. What
cannot handle a problem is left out of it, with the reason. Every run is a study of the store, so
that the same call goes on after an interruption, and a page can show them
(:func:`~sharpen.search.sweep.sweep`).

Henry B. Mann and Donald R. Whitney, "On a Test of Whether one of Two Random Variables is
Stochastically Larger than the Other", Annals of Mathematical Statistics 18(1), 1947.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import find_optimizer, make_optimizer
from sharpen.core.problem import Problem, contexts_of, fidelity_of
from sharpen.search.sweep import Experiment, sweep

if TYPE_CHECKING:
    from sharpen.core.store import Store

__all__ = ["compare_optimizers"]

_LEVEL = 0.05
_LEAST_SEEDS = 4  # fewer can never be told apart at that level


def compare_optimizers(
    problems: Sequence[Problem],
    optimizers: Sequence[str],
    *,
    trials: int = 50,
    seeds: int = 5,
    store: str | Path | Store = "sqlite:///bench.db",
    workers: int = 1,
    on_experiment: Callable[[Experiment], None] | None = None,
) -> dict[str, Any]:
    """Run optimizers on problems and tell who is best, and who is behind.

    Args:
        problems: each with one objective and a name of its own.
        optimizers: by name, with their defaults.
        trials: of each run.
        seeds: runs of each optimizer on each problem.
        store: keeps them.
        workers: runs at once.
        on_experiment: called after each run.

    Returns:
        ``problems``: of each its ``name``, ``objective`` and ``rows``, the best first, with
        ``optimizer``, ``median``, ``q1``, ``q3``, ``best``, ``failed`` runs, ``behind`` (None with
        fewer than four seeds), where the minimum is known ``regret`` (of the median), or ``cannot``
        and why; ``ranks``: mean place of each optimizer over the problems that all can handle.

    Raises:
        ConfigError: unknown optimizers, several objectives, or nothing to compare.
    """
    if not problems or not optimizers:
        raise ConfigError("a comparison needs a problem and an optimizer.")
    found = []
    for problem in problems:
        able, unable = _able(problem, optimizers, trials)
        rows: list[dict[str, Any]] = []
        if able:
            swept = sweep(
                problem,
                able,
                budget=trials,
                seeds=seeds,
                store=store,
                workers=workers,
                on_experiment=on_experiment,
            )
            values = {
                name: [e.best for e in swept.experiments if e.algorithm == name] for name in able
            }
            rows = _rows(swept.table(), values, problem)
        rows += [{"optimizer": name, "cannot": why} for name, why in unable.items()]
        objective = problem.objectives[0]
        found.append(
            {
                "name": problem.name,
                "objective": {"name": objective.name, "direction": objective.direction},
                "rows": rows,
            }
        )
    return {"trials": trials, "seeds": seeds, "problems": found, "ranks": _ranks(found)}


def _able(
    problem: Problem, optimizers: Sequence[str], trials: int
) -> tuple[list[str], dict[str, str]]:
    """Who can handle a problem, and why others cannot."""
    able: list[str] = []
    unable: dict[str, str] = {}
    for name in dict.fromkeys(optimizers):
        find_optimizer(name)
        try:
            make_optimizer(
                name,
                problem.space,
                problem.objectives,
                problem.constraints,
                budget=trials,
                fidelity=fidelity_of(problem),
                contexts=contexts_of(problem),
            )
            able.append(name)
        except ConfigError as error:
            unable[name] = str(error)
    return able, unable


def _rows(
    table: Sequence[dict[str, Any]], values: dict[str, list[float | None]], problem: Problem
) -> list[dict[str, Any]]:
    from scipy.stats import mannwhitneyu

    loss = problem.objectives[0].loss
    leader = [loss(v) for v in values[table[0]["algorithm"]] if v is not None]
    least = getattr(problem, "minimum", None)
    rows = []
    for line in table:
        own = [loss(v) for v in values[line["algorithm"]] if v is not None]
        behind = None
        if min(len(own), len(leader)) >= _LEAST_SEEDS:
            p = mannwhitneyu(own, leader, alternative="two-sided").pvalue
            behind = bool(p < _LEVEL and statistics.median(own) > statistics.median(leader))
        row = {"optimizer": line["algorithm"]}
        row |= {key: line[key] for key in ("median", "q1", "q3", "best", "failed")}
        row["behind"] = behind
        if least is not None and line["median"] is not None:
            row["regret"] = line["median"] - least
        rows.append(row)
    return rows


def _ranks(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean place, ties in the middle, over problems on which every optimizer ran."""
    places: dict[str, list[float]] = {}
    for problem in found:
        medians = {row["optimizer"]: row.get("median") for row in problem["rows"]}
        if any(median is None for median in medians.values()):
            continue
        sign = 1 if problem["objective"]["direction"] == "min" else -1
        for name, median in medians.items():
            better = sum(sign * other < sign * median for other in medians.values())
            equal = sum(other == median for other in medians.values())
            places.setdefault(name, []).append(better + (equal + 1) / 2)
    means = {name: statistics.mean(several) for name, several in places.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))
