"""The lottery of hyper-parameters: many settings of many algorithms, on equal budgets.

Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888: each family of algorithms is run under a grid of
its hyper-parameters, and the spread within a family is set against the difference between families.

::

    score of a setting   median over the seeds of the best value after `budget` trials
    within a family      best - worst of its settings' scores
    between families     best - worst of the families' best settings (tuned), and of their medians

Every experiment is a study of the store, named by its problem, algorithm, setting and seed, so that
the same call goes on where it was interrupted, and a larger budget adds trials to what is there.
A trial is one evaluation that is asked for; how many different designs they were is told beside.

Differs from the paper: budgets are trials, not wall time. Time: that of the studies.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.core.config import digest
from sharpen.core.errors import ConfigError
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import find_optimizer, make_optimizer
from sharpen.core.problem import Objective, Problem
from sharpen.core.space import random_stream

if TYPE_CHECKING:  # the database is loaded on first use
    from sharpen.core.store import Store
    from sharpen.core.study_view import StudyView

__all__ = ["Experiment", "Lottery", "Sweep", "sweep"]

Options = Mapping[str, Any]
Settings = int | Sequence[Options] | Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One algorithm under one setting on one problem with one seed."""

    problem: str
    algorithm: str
    options: dict[str, Any]
    """The setting."""

    seed: int
    study: str
    """Name of its study in the store."""

    best: float | None
    """Best value; None when no trial ended well."""

    trials: int
    """Trials that ended."""

    designs: int
    """Different configurations among them."""

    seconds: float
    """Of all evaluations together."""

    @property
    def setting(self) -> str:
        """The options as text, the same for equal ones."""
        return json.dumps(self.options, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Lottery:
    """How much settings matter beside families, on one problem; see the module."""

    problem: str
    within: dict[str, float]
    """Spread by family."""

    between_tuned: float
    """Difference between the families' best settings."""

    between_medians: float
    """Difference between the families' median settings."""

    @property
    def holds(self) -> bool:
        """Whether the median spread within families exceeds the difference between tuned ones."""
        return statistics.median(self.within.values()) > self.between_tuned


@dataclass(frozen=True, slots=True)
class Sweep:
    """What all experiments found."""

    experiments: tuple[Experiment, ...]
    objective: Objective

    def table(self, *, by: str = "algorithm") -> list[dict[str, Any]]:
        """Rows of best, median and quartiles of the best values, the best rows first.

        Args:
            by: ``"algorithm"``: a row a problem and family, over settings and seeds;
                ``"setting"``: a row a problem and setting, over seeds.

        Raises:
            ConfigError: another word.
        """
        if by not in ("algorithm", "setting"):
            raise ConfigError(f"by={by!r} must be algorithm or setting.")
        groups: dict[tuple[str, ...], list[Experiment]] = {}
        for e in self.experiments:
            key = (e.problem, e.algorithm) + ((e.setting,) if by == "setting" else ())
            groups.setdefault(key, []).append(e)
        rows = []
        for key, members in groups.items():
            values = [e.best for e in members if e.best is not None]
            row: dict[str, Any] = {"problem": key[0], "algorithm": key[1]}
            if by == "setting":
                row["options"] = members[0].options
            row |= {
                "experiments": len(members),
                "failed": len(members) - len(values),
                "trials": sum(e.trials for e in members),
                "designs": sum(e.designs for e in members),
                **_spread(values, self.objective),
            }
            rows.append(row)
        order = {name: k for k, name in enumerate(dict.fromkeys(r["problem"] for r in rows))}
        worst = float("inf")
        return sorted(
            rows,
            key=lambda r: (
                order[r["problem"]],
                worst if r["median"] is None else self.objective.loss(r["median"]),
            ),
        )

    def scores(self, problem: str) -> dict[str, dict[str, float]]:
        """By algorithm, then setting: the median over seeds of the best value."""
        found: dict[str, dict[str, list[float]]] = {}
        for e in self.experiments:
            if e.problem == problem and e.best is not None:
                found.setdefault(e.algorithm, {}).setdefault(e.setting, []).append(e.best)
        return {
            algorithm: {setting: statistics.median(v) for setting, v in settings.items()}
            for algorithm, settings in found.items()
        }

    def lottery(self) -> list[Lottery]:
        """Spread within families and difference between them, by problem.

        Raises:
            ConfigError: fewer than two families have a value.
        """
        found = []
        for problem in dict.fromkeys(e.problem for e in self.experiments):
            scores = {name: list(s.values()) for name, s in self.scores(problem).items()}
            if len(scores) < 2:
                raise ConfigError("the lottery compares families: it needs two with values.")
            loss = self.objective.loss
            tuned = [min(map(loss, values)) for values in scores.values()]
            middle = [statistics.median(values) for values in scores.values()]
            found.append(
                Lottery(
                    problem,
                    {name: max(values) - min(values) for name, values in scores.items()},
                    max(tuned) - min(tuned),
                    max(middle) - min(middle),
                )
            )
        return found

    def summary(self) -> str:
        """The table by algorithm, and the lottery, as text."""
        lines = [
            f"{'problem':<28} {'algorithm':<14} {'best':>10} {'median':>10} {'IQR':>10} {'runs':>5}"
        ]
        for row in self.table():
            numbers = [row[name] for name in ("best", "median", "iqr")]
            cells = " ".join(f"{'-' if v is None else f'{v:.4g}':>10}" for v in numbers)
            lines.append(
                f"{row['problem']:<28} {row['algorithm']:<14} {cells} {row['experiments']:>5}"
            )
        if len({e.algorithm for e in self.experiments if e.best is not None}) > 1:
            for found in self.lottery():
                lines.append(
                    f"{found.problem}: within a family "
                    f"{statistics.median(found.within.values()):.4g}, between tuned families "
                    f"{found.between_tuned:.4g}, between medians {found.between_medians:.4g}"
                )
        return "\n".join(lines)


def sweep(
    problem: Problem | Sequence[Problem],
    algorithms: Mapping[str, Settings] | Sequence[str],
    *,
    budget: int = 100,
    seeds: int | Sequence[int] = 3,
    store: str | Path | Store = "sqlite:///sweep.db",
    workers: int = 1,
    on_experiment: Callable[[Experiment], None] | None = None,
) -> Sweep:
    """Run every setting of every algorithm with every seed on every problem.

    Args:
        problem: one, or several with equal objectives and names of their own; a single objective.
        algorithms: by name, the settings to try: a list of options; a grid, values by option; or
            how many settings to draw from the algorithm's own hyper-parameters, the first of them
            the defaults. Of names alone, the defaults.
        budget: trials of each experiment.
        seeds: how many, or which.
        store: keeps every trial; the same call goes on after an interruption.
        workers: experiments at once, in processes; more than one needs a store in a file or on a
            server, and problems that can be pickled.
        on_experiment: called after each.

    Returns:
        What was found; ``sweep(...).summary()`` is a table.

    Raises:
        ConfigError: an unknown algorithm or option, no settings, or several objectives.
    """
    problems = list(problem) if isinstance(problem, Sequence) else [problem]
    if not problems or budget < 1 or workers < 1:
        raise ConfigError(
            f"a sweep needs a problem, budget={budget} and workers={workers} at least 1."
        )
    names = [p.name for p in problems]
    if len(set(names)) < len(names):
        raise ConfigError(f"problems need names of their own, got {', '.join(names)}.")
    objectives = {tuple(p.objectives) for p in problems}
    if len(objectives) > 1 or len(problems[0].objectives) > 1:
        raise ConfigError("a sweep compares values of one objective, the same in all problems.")
    numbers = range(seeds) if isinstance(seeds, int) else list(seeds)
    if not len(numbers):
        raise ConfigError("a sweep needs a seed.")
    tried = {name: settings_of(name, given) for name, given in _by_name(algorithms).items()}
    for p in problems:
        for name, settings in tried.items():
            for options in settings:  # a wrong option is told before hours go by
                maker = {"name": name, **options}
                make_optimizer(maker, p.space, p.objectives, p.constraints, budget=budget)
    from sharpen.core.store import open_store

    opened = open_store(store)
    if workers > 1 and opened.url == "sqlite://":
        raise ConfigError("several workers need a store in a file, such as sqlite:///sweep.db.")
    jobs = [
        (p, name, dict(options), seed, budget)
        for p in problems
        for seed in numbers
        for name, settings in tried.items()
        for options in settings
    ]
    found = []
    if workers == 1:
        for job in jobs:
            found.append(_run(job, opened))
            if on_experiment is not None:
                on_experiment(found[-1])
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _open, (opened.url,)) as pool:
            for experiment in pool.map(_run, jobs):
                found.append(experiment)
                if on_experiment is not None:
                    on_experiment(experiment)
    return Sweep(tuple(found), problems[0].objectives[0])


def settings_of(name: str, given: Settings) -> list[dict[str, Any]]:
    """The settings of an algorithm to try; see :func:`sweep`.

    Raises:
        ConfigError: none, or a number of them of an algorithm that has no hyper-parameters.
    """
    made = find_optimizer(name)
    if isinstance(given, int):
        space = getattr(made, "hyperparameters", None)
        if given < 1 or (space is None and given > 1):
            raise ConfigError(
                f"{given} settings of '{name}' cannot be drawn; it has "
                f"{'no hyper-parameters' if space is None else ', '.join(space)}."
            )
        drawn = [] if space is None else [space.draw(random_stream(0, k)) for k in range(given - 1)]
        found: list[dict[str, Any]] = [{}, *drawn]
    elif isinstance(given, Mapping):
        found = [dict(zip(given, row, strict=True)) for row in itertools.product(*given.values())]
    else:
        found = [dict(options) for options in given]
    unique = {json.dumps(options, sort_keys=True): options for options in found}
    if not unique:
        raise ConfigError(f"'{name}' has no settings to try; [{{}}] is its defaults.")
    return list(unique.values())


def _by_name(algorithms: Mapping[str, Settings] | Sequence[str]) -> dict[str, Settings]:
    if isinstance(algorithms, str):
        algorithms = [algorithms]
    if isinstance(algorithms, Mapping):
        return dict(algorithms)
    return {name: [{}] for name in algorithms}


def _spread(values: Sequence[float], objective: Objective) -> dict[str, float | None]:
    """Best, median, quartiles and their distance."""
    if not values:
        return dict.fromkeys(("best", "median", "q1", "q3", "iqr"))
    both = list(values) * 2 if len(values) == 1 else values
    q1, median, q3 = statistics.quantiles(both, n=4, method="inclusive")
    best = min(values, key=objective.loss)
    return {"best": best, "median": median, "q1": q1, "q3": q3, "iqr": q3 - q1}


Job = tuple[Problem, str, dict[str, Any], int, int]
_store: Store | None = None


def _open(url: str) -> None:
    from sharpen.core.store import open_store

    global _store
    _store = open_store(url)


def _run(job: Job, store: Store | None = None) -> Experiment:
    """Carry out an experiment, or what is left of it."""
    from sharpen.core.study import Budget, Study

    problem, algorithm, options, seed, budget = job
    opened = store or _store
    assert opened is not None
    label = digest(options)[:8] if options else "default"
    name = f"{problem.name}/{algorithm}/{label}/{seed}"
    source = {"sweep": {"problem": problem.name, "algorithm": algorithm, "options": options}}
    study = Study(
        problem,
        optimizer={"name": algorithm, **options},
        store=opened,
        name=name,
        budget=Budget(trials=budget),
        seed=seed,
        source=source,
    )
    study.run()
    study.refresh()
    return _experiment(study, problem, algorithm, options, seed, budget)


def _experiment(
    study: StudyView,
    problem: Problem,
    algorithm: str,
    options: dict[str, Any],
    seed: int,
    budget: int,
) -> Experiment:
    objective = problem.objectives[0]
    trials: list[Trial] = [t for t in study.trials() if t.feedback is not None][:budget]
    good = [t.values[objective.name] for t in trials if t.is_ok and t.feasible]
    return Experiment(
        problem=problem.name,
        algorithm=algorithm,
        options=options,
        seed=seed,
        study=study.name,
        best=min(good, key=objective.loss) if good else None,
        trials=len(trials),
        designs=len({study.space.digest(t.config) for t in trials}),
        seconds=sum(t.feedback.cost.get("seconds", 0.0) for t in trials if t.feedback),
    )
