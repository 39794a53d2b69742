"""What a study found: best, Pareto set, table, export, report. Reading needs no problem."""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.core.errors import ConfigError, DataError, DependencyNotInstalled, ExecutionError
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.optimizer import is_feasible, is_true
from sharpen.core.problem import Constraint, Fidelity, Objective
from sharpen.core.report import Chart, Section, Series, Table, Text, write_html
from sharpen.core.space import Space
from sharpen.core.store import Store, StoredTrial, StudyRecord, open_store

__all__ = ["StudyView", "last_line", "load_study", "trial_seed"]

_MAX_POINTS = 2000  # a chart with more shows every k-th


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of a trial, from 0 to 2**31 - 1: a function of the study's seed and its number."""
    words = hashlib.blake2b(f"{study_seed} {number}".encode(), digest_size=4).digest()
    return int.from_bytes(words, "little") & 0x7FFFFFFF


def load_study(store: str | Path | Store, name: str) -> StudyView:
    """Open a study for reading.

    Args:
        store: its URL or file.
        name: its name.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: the store has no such study.
    """
    opened = open_store(store, create=False)
    return StudyView(opened, opened.study(name))


class StudyView:
    """A study's trials and what follows from them; made by :func:`load_study`.

    Args:
        store: the open store.
        record: the study in it.
    """

    def __init__(self, store: Store, record: StudyRecord) -> None:
        self.store = store
        self.id = record.id
        self.name = record.name
        self.seed = record.seed
        self.space = Space.from_dict(record.space)
        self.objectives = tuple(Objective(**o) for o in record.objectives)
        self.constraints = tuple(Constraint(**c) for c in record.constraints)
        fidelity, contexts = record.spec.get("fidelity"), record.spec.get("contexts")
        self.fidelity = None if fidelity is None else Fidelity(**fidelity)
        self.contexts = None if contexts is None else Space.from_dict(contexts)
        self._ended: dict[int, Trial] = {}
        self._running: dict[int, Trial] = {}
        self._log: list[Trial] = []
        self._revision = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, store={self.store.url!r})"

    # -- trials ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what is new in the store."""
        with _without_garbage_collection():  # a hundred thousand trials are none
            self._read(self.store.trials(self.id, after=self._revision))

    def _read(self, rows: Sequence[StoredTrial]) -> None:
        self._running = {}
        for row in rows:
            trial = self._trial(row)
            if trial.feedback is None:
                self._running[trial.number] = trial
            else:
                self._ended[trial.number] = trial
                self._log.append(trial)
                self._revision = max(self._revision, row.revision)

    def _trial(self, row: StoredTrial) -> Trial:
        assert row.config is not None
        state: Any = row.state
        return Trial(
            number=row.number,
            # JSON knows no tuples: the parameter gives back its own value.
            config={
                name: self.space[name].check(value) if type(value) is list else value
                for name, value in row.config.items()
            },
            fidelity=row.fidelity,
            context={} if self.contexts is None else self.contexts.validate(row.context),
            state=state,
            feedback=row.feedback,
            seed=trial_seed(self.seed, row.number),
            attempt=row.attempt,
            origin=row.origin,
            started_s=row.started_s,
            finished_s=row.finished_s,
            feasible=row.feedback is None or is_feasible(row.feedback, self.constraints),
        )

    def trials(self) -> list[Trial]:
        """Every trial that has a configuration, by number."""
        self.refresh()
        merged = {**self._ended, **self._running}
        return [merged[number] for number in sorted(merged)]

    def counts(self) -> dict[str, int]:
        """Number of trials by state."""
        found: dict[str, int] = {}
        for trial in self.trials():
            found[trial.state] = found.get(trial.state, 0) + 1
        return found

    def _good(self) -> list[Trial]:
        """Trials that ended well, keep every constraint and measured the truth, by number."""
        return [
            trial
            for trial in self.trials()
            if trial.is_ok and trial.feasible and is_true(trial.fidelity, self.fidelity)
        ]

    # -- answers --------------------------------------------------------------------------------

    @property
    def best(self) -> Trial:
        """The feasible trial with the best value; of equal ones, the earliest.

        Raises:
            ConfigError: there are several objectives.
            ExecutionError: no trial ended well and feasible.
        """
        if len(self.objectives) > 1:
            names = ", ".join(o.name for o in self.objectives)
            raise ConfigError(
                f"the study '{self.name}' has the objectives {names}; use pareto() instead of best."
            )
        good = self._good()
        if not good:
            raise ExecutionError(f"{self._no_good()} so there is no best one.")
        objective = self.objectives[0]
        return min(good, key=lambda trial: objective.loss(trial.values[objective.name]))

    def _no_good(self) -> str:
        trials = self.trials()
        failed = [t for t in trials if t.feedback is not None and t.feedback.error]
        text = f"the study '{self.name}' has {len(trials)} trials and none ended well and feasible,"
        if failed and failed[-1].feedback is not None:
            text += f" (the last error: {last_line(failed[-1].feedback.error)})"
        return text

    def pareto(self) -> list[Trial]:
        """Feasible trials that no other beats in every objective, by number."""
        good = self._good()
        if not good:
            return []
        losses = np.array([[o.loss(t.values[o.name]) for o in self.objectives] for t in good])
        return [good[i] for i in _non_dominated(losses)]

    def importance(self, objective: str | None = None, **options: Any) -> Any:
        """Which parameters matter: :class:`sharpen.search.importance.Importance`.

        Args:
            objective: which one; default the first.
            options: of :func:`sharpen.search.importance.importance`.

        Raises:
            ConfigError: there is no such objective.
            DataError: too few trials ended well.
            DependencyNotInstalled: scikit-learn is missing.
        """
        named = {o.name: o for o in self.objectives}
        chosen = objective or self.objectives[0].name
        if chosen not in named:
            raise ConfigError(f"the study has no objective '{chosen}': {', '.join(named)}.")
        return self.importance_of(self._good(), named[chosen], **options)

    def importance_of(self, trials: Sequence[Trial], objective: Objective, **options: Any) -> Any:
        """The same from some of the trials; see :meth:`importance`."""
        [point] = metadata.entry_points(group="sharpen.analyses", name="importance")
        return point.load()(self.space, trials, objective, **options)

    def frame(self) -> Any:
        """A pandas ``DataFrame``, one row a trial.

        Columns are ``number``, ``state``, the parameters, the objectives, the constraints,
        ``feasible`` and ``seconds``; a parameter named like another column is ``config.NAME``.

        Raises:
            DependencyNotInstalled: pandas is missing.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise DependencyNotInstalled.for_feature("study.frame()", "search") from None
        columns, rows = self._table()
        return pandas.DataFrame(rows, columns=columns)

    def _table(self) -> tuple[list[str], list[list[Any]]]:
        objectives = [o.name for o in self.objectives]
        measured = [c.name for c in self.constraints if c.name not in objectives]
        others = ["number", "state", *objectives, *measured, "feasible", "seconds"]
        names = [f"config.{n}" if n in others else n for n in self.space]
        rows: list[list[Any]] = []
        for trial in self.trials():
            feedback = trial.feedback or Feedback()
            rows.append(
                [
                    trial.number,
                    trial.state,
                    *(trial.config.get(name) for name in self.space),
                    *(feedback.objectives.get(name) for name in objectives),
                    *(feedback.constraints.get(name) for name in measured),
                    trial.feasible,
                    feedback.cost.get("seconds"),
                ]
            )
        columns = ["number", "state", *names, *objectives, *measured, "feasible", "seconds"]
        return columns, rows

    def export(self, path: str | Path) -> Path:
        """Write every trial to a ``.jsonl``, ``.csv`` or ``.parquet`` file.

        The first has all that is known of a trial; the others the columns of :meth:`frame`, in
        which a value that is neither a number, a text nor a truth is JSON text.

        Raises:
            ConfigError: another kind of file.
            DependencyNotInstalled: pyarrow is missing (``.parquet``).
            StorageError: it cannot be written.
        """
        from sharpen.core.study_export import export

        return export(self.trials(), *self._table(), Path(path))

    def summary(self) -> dict[str, Any]:
        """What the study is and found, as plain data."""
        found: dict[str, Any] = {
            "name": self.name,
            "store": self.store.url,
            "objectives": {o.name: o.direction for o in self.objectives},
            "constraints": [str(c) for c in self.constraints],
            "trials": self.counts(),
        }
        if len(self.objectives) == 1:
            found["best"] = self.best.to_dict() if self._good() else None
        else:
            found["pareto"] = [trial.to_dict() for trial in self.pareto()]
        return found

    # -- report ---------------------------------------------------------------------------------

    def report(self, path: str | Path = "study.html") -> Path:
        """Write one self-contained HTML file: history, parameters, Pareto set, failures.

        Raises:
            DependencyNotInstalled: plotly is missing (extra ``report``).
            StorageError: it cannot be written.
        """
        path = Path(path)
        counts = ", ".join(f"{n} {state}" for state, n in sorted(self.counts().items()))
        write_html(path, f"Study {self.name}", self._sections(), subtitle=counts or "no trials")
        return path

    def _sections(self) -> list[Section]:
        good = self._good()
        sections: list[Section] = []
        if len(self.objectives) == 1 and good:
            best = self.best
            rows = [[name, value] for name, value in best.config.items()]
            value = Text(f"Trial {best.number}: {self.objectives[0].name} = {best.value:.6g}.")
            sections.append(Section("Best", [value, Table(["parameter", "value"], rows)]))
        elif good:
            sections.append(self._pareto_section())
        for objective in self.objectives:
            sections.append(self._history(objective, good))
        if good:
            sections.append(self._parameters(good))
            sections += self._importance()
        if self.constraints:
            sections.append(Section("Constraints", [self._constraint_table()]))
        broken = [t for t in self.trials() if t.feedback is not None and t.feedback.error]
        if broken:
            blocks: list[Text | Table | Chart] = [
                Text(f"trial {t.number} ({t.state})\n{t.feedback.error}", preformatted=True)
                for t in broken[-20:]
                if t.feedback is not None
            ]
            sections.append(Section(f"Failures ({len(broken)})", blocks))
        return sections

    def _history(self, objective: Objective, good: Sequence[Trial]) -> Section:
        values = [trial.values[objective.name] for trial in good]
        best: list[float] = []
        for value in values:
            better = not best or objective.loss(value) < objective.loss(best[-1])
            best.append(value if better else best[-1])
        numbers = [trial.number for trial in good]
        label = f"{objective.name} [{objective.unit}]" if objective.unit else objective.name
        chart = Chart(
            title=f"{objective.name} by trial",
            series=[_thin("feasible trials", numbers, values), _thin("best so far", numbers, best)],
            x_label="trial",
            y_label=label,
            kind="scatter",
        )
        return Section(f"History of {objective.name}", [chart])

    def _parameters(self, good: Sequence[Trial]) -> Section:
        objective = self.objectives[0]
        charts: list[Text | Table | Chart] = []
        for name, parameter in self.space.items():
            points = [(t.config[name], t.values[objective.name]) for t in good if name in t.config]
            if parameter.cardinality < 2 or not points:
                continue
            unit = f" [{parameter.unit}]" if parameter.unit else ""
            x = [v if isinstance(v, (int, float)) else str(v) for v, _ in points]
            charts.append(
                Chart(
                    title=f"{objective.name} by {name}",
                    series=[_thin("feasible trials", x, [y for _, y in points])],
                    x_label=f"{name}{unit}",
                    y_label=objective.name,
                    kind="scatter",
                )
            )
        return Section("Parameters", charts)

    def _importance(self) -> list[Section]:
        """Shares of the variance by objective, where there is enough to tell."""
        sections = []
        for objective in self.objectives:
            try:
                found = self.importance(objective.name)
            except (DataError, DependencyNotInstalled):
                continue
            rows = [[name, f"{share:.1%}"] for name, share in found.parameters.items()]
            rows += [[" x ".join(pair), f"{share:.1%}"] for pair, share in found.pairs.items()]
            note = Text(f"From {found.trials} trials; R^2 on unseen ones {found.fit:.2f}.")
            table = Table(["parameter", "share of the variance"], rows)
            sections.append(Section(f"Importance for {objective.name}", [note, table]))
        return sections

    def _pareto_section(self) -> Section:
        front = self.pareto()
        first, second = self.objectives[:2]
        chart = Chart(
            title=f"{second.name} against {first.name}",
            series=[
                _thin(
                    label,
                    [t.values[first.name] for t in trials],
                    [t.values[second.name] for t in trials],
                )
                for label, trials in (("feasible trials", self._good()), ("Pareto set", front))
            ],
            x_label=first.name,
            y_label=second.name,
            kind="scatter",
        )
        columns = ["trial", *(o.name for o in self.objectives), *self.space]
        rows = [
            [
                t.number,
                *(t.values[o.name] for o in self.objectives),
                *(t.config.get(n) for n in self.space),
            ]
            for t in front
        ]
        return Section("Pareto set", [chart, Table(columns, rows)])

    def _constraint_table(self) -> Table:
        ended = [t for t in self.trials() if t.is_ok and t.feedback is not None]
        rows: list[list[Any]] = []
        for constraint in self.constraints:
            values = [t.feedback.constraints[constraint.name] for t in ended if t.feedback]
            rows.append([str(constraint), sum(map(constraint.holds, values)), len(values)])
        return Table(["constraint", "kept by", "of trials"], rows)


def _thin(name: str, x: Sequence[Any], y: Sequence[float]) -> Series:
    step = math.ceil(len(x) / _MAX_POINTS) or 1
    return Series(name, list(x)[::step], list(y)[::step])


def last_line(text: str | None) -> str:
    """The last line of a message, which says what went wrong."""
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else ""


def _non_dominated(losses: Any) -> list[int]:
    """Indices of the rows of ``losses`` [n, m] that no other row dominates, in order.

    Row a dominates b when it is nowhere larger and somewhere smaller; of equal rows all stay.
    """
    # In lexicographic order a row can only be dominated by an earlier one.
    order = np.lexsort(losses.T[::-1])
    front: list[int] = []
    for i in order:
        rows = losses[front]
        worse = np.all(rows <= losses[i], axis=1) & np.any(rows < losses[i], axis=1)
        if not bool(np.any(worse)):
            front.append(int(i))
    return sorted(front)


def as_plain(objects: Iterable[Objective | Constraint]) -> list[Mapping[str, Any]]:
    """Objectives or constraints as the store keeps them."""
    return [{name: getattr(o, name) for name in type(o).__dataclass_fields__} for o in objects]
