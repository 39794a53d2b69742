"""Study files: a study of any program in YAML, without a line of Python.

::

    name: chaos
    store: sqlite:///s.db
    command: "python objective.py {x}"
    space: {x: {type: float, low: 0, high: 1}}
    minimize: y
    optimizer: random
    budget: {trials: 60}
    workers: 4

Starting the same file again resumes the study; starting it twice at once shares the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sharpen.core.command import CommandProblem
from sharpen.core.config import Marks, apply_overrides, from_dict, load_yaml
from sharpen.core.errors import ConfigError
from sharpen.core.executor import Local
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import make_optimizer
from sharpen.core.problem import as_constraints, as_objectives
from sharpen.core.space import Space
from sharpen.core.study import Budget, Study

__all__ = ["StudyFile", "load_study_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFile:
    """The keys of a study file."""

    command: str
    """The program, with ``{name}`` for each parameter; it runs in the file's folder."""

    space: dict[str, Any]
    """Parameters by name: ``{x: {type: float, low: 0, high: 1}}``."""

    budget: Budget
    """When to stop."""

    name: str | None = None
    """The study's name; default the file's."""

    store: str = "sqlite:///study.db"
    """Where it is kept; a relative path starts at the working folder."""

    minimize: str | list[str] | None = None
    """Keys of the printed JSON to make small."""

    maximize: str | list[str] | None = None
    """Keys of the printed JSON to make large."""

    constraints: list[str] = field(default_factory=list)
    """Such as ``memory <= 8e9``."""

    forbid: list[str] = field(default_factory=list)
    """Combinations of parameters never to try, such as ``a + b > 16``."""

    optimizer: str | dict[str, Any] = "auto"
    """Name of the optimizer, or a mapping of ``name`` and its options."""

    workers: int = 1
    """Trials at once."""

    timeout_s: float | None = None
    """Seconds a trial may take."""

    memory_bytes: int | None = None
    """Address space a trial may use."""

    pruner: Literal["median"] | None = None
    """Stops bad trials early."""

    seed: int = 0
    """Of the optimizer and the trials."""

    dedup: Literal["reuse", "reevaluate", "forbid"] = "reuse"
    """What to do with a configuration that was tried before."""

    enqueue: list[dict[str, Any]] = field(default_factory=list)
    """Configurations to try first, when the study is new."""


def load_study_file(
    path: str | Path,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    callbacks: Sequence[Callable[[Study, Trial], None]] = (),
) -> Study:
    """Read a study file and open its study, ready to run.

    Args:
        path: the YAML file.
        overrides: ``["budget.trials=10"]`` or ``{"budget.trials": 10}``.
        callbacks: called as ``callback(study, trial)`` after each trial.

    Raises:
        ConfigError: anything wrong in it, with file and line.
        MissingFileError: no such file.
    """
    path = Path(path)
    document = apply_overrides(load_yaml(path), overrides)
    marks = document.marks
    file = from_dict(StudyFile, document.data, marks=marks)
    space = Space.parse(file.space, path=("space",), marks=marks)
    problem = _at(
        marks,
        ("command", "minimize", "maximize", "constraints", "forbid"),
        lambda: CommandProblem(
            file.command,
            space.forbid(*file.forbid) if file.forbid else space,
            as_objectives(file.minimize, file.maximize),
            as_constraints(file.constraints),
            name=file.name or path.stem,
            folder=path.absolute().parent,
        ),
    )
    optimizer = _at(
        marks,
        ("optimizer",),
        lambda: make_optimizer(
            file.optimizer,
            problem.space,
            problem.objectives,
            problem.constraints,
            seed=file.seed,
            budget=file.budget.trials,
        ),
    )
    study = Study(
        problem,
        optimizer=optimizer,
        store=file.store,
        budget=file.budget,
        executor=Local(file.workers, timeout_s=file.timeout_s, memory_bytes=file.memory_bytes),
        pruner=file.pruner,
        seed=file.seed,
        dedup=file.dedup,
        callbacks=callbacks,
    )
    if file.enqueue and not study.store.study(study.name).counts:
        _at(marks, ("enqueue",), lambda: study.enqueue(file.enqueue))
    return study


def _at(marks: Marks, keys: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """Do ``make``, placing an error at the line of the key that its message names."""
    try:
        return make()
    except ConfigError as error:
        named = next((key for key in keys if key.rstrip("s") in str(error)), keys[0])
        where = marks.at((named,))
        raise ConfigError(f"{where + ': ' if where else ''}{error}") from None
