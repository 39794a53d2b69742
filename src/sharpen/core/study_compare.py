"""Studies side by side: how good each was after how many trials, and whose Pareto set is ahead.

Coverage of two Pareto sets: Eckart Zitzler and Lothar Thiele, "Multiobjective Evolutionary
Algorithms: A Comparative Case Study and the Strength Pareto Approach", IEEE Transactions on
Evolutionary Computation 3(4), 1999, definition 3.

::

    C(A, B) = share of B that some a in A weakly dominates
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError
from sharpen.core.problem import Objective
from sharpen.core.study_view import StudyView

__all__ = ["compare_studies"]

_MARKS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def compare_studies(studies: Sequence[StudyView]) -> dict[str, Any]:
    """Compare studies of the same objectives.

    Args:
        studies: two or more.

    Returns:
        ``objectives`` by name with their directions; ``studies``, a row each with ``name``,
        ``optimizers``, ``trials``, ``ok``, ``seconds`` (of all trials together) and, of a single
        objective, ``best`` and ``best_after`` (by numbers of trials); of several, ``pareto`` (the
        size of its set) and ``covers`` (the coverage of each other study's set by this one's).

    Raises:
        ConfigError: fewer than two, or their objectives differ.
    """
    if len(studies) < 2:
        raise ConfigError("comparing takes two studies or more.")
    first = studies[0]
    for other in studies[1:]:
        if other.objectives != first.objectives:
            raise ConfigError(
                f"the studies '{first.name}' and '{other.name}' have different objectives: "
                f"{_goals(first.objectives)} and {_goals(other.objectives)}."
            )
    longest = max(len(study.trials()) for study in studies)
    marks = [*(mark for mark in _MARKS if mark < longest), longest]
    rows = [_row(study, marks) for study in studies]
    if len(first.objectives) > 1:
        fronts = [_front(study) for study in studies]
        for i, row in enumerate(rows):
            row["covers"] = {
                study.name: _coverage(fronts[i], fronts[k])
                for k, study in enumerate(studies)
                if k != i
            }
    return {"objectives": {o.name: o.direction for o in first.objectives}, "studies": rows}


def _goals(objectives: Sequence[Objective]) -> str:
    return ", ".join(f"{o.direction} {o.name}" for o in objectives)


def _row(study: StudyView, marks: Sequence[int]) -> dict[str, Any]:
    trials = study.trials()
    good = [t for t in trials if t.is_ok and t.feasible]
    row: dict[str, Any] = {
        "name": study.name,
        "optimizers": sorted({t.origin for t in trials}),
        "trials": len(trials),
        "ok": sum(t.is_ok for t in trials),
        "seconds": sum(t.feedback.cost.get("seconds", 0.0) for t in trials if t.feedback),
    }
    if len(study.objectives) > 1:
        return {**row, "pareto": len(study.pareto())}
    objective = study.objectives[0]
    row["best"] = study.best.values[objective.name] if good else None
    row["best_after"] = {}
    for mark in marks:
        if mark > len(trials):
            break
        values = [t.values[objective.name] for t in trials[:mark] if t.is_ok and t.feasible]
        row["best_after"][mark] = min(values, key=objective.loss) if values else None
    return row


def _front(study: StudyView) -> Any:
    """[n, m] losses of the Pareto set."""
    losses = [[o.loss(t.values[o.name]) for o in study.objectives] for t in study.pareto()]
    return np.array(losses).reshape(-1, len(study.objectives))


def _coverage(ours: Any, theirs: Any) -> float | None:
    """Share of ``theirs`` [n, m] that ``ours`` weakly dominates; None of an empty set."""
    if not len(theirs):
        return None
    covered = (ours[:, None, :] <= theirs[None, :, :]).all(axis=2).any(axis=0)
    return float(covered.mean()) if len(ours) else 0.0
