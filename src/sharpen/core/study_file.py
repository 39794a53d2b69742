"""Study files: a study of any program, or of a named problem, in YAML.

::

    name: chaos
    store: sqlite:///s.db
    command: "python objective.py {x}"
    space: {x: {type: float, low: 0, high: 1}}
    minimize: y
    optimizer: random
    budget: {trials: 60}
    workers: 4

Starting the same file again resumes the study; starting it twice at once shares the work. The file
is kept in the store, so that other processes, on other machines too, can join without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from sharpen.core.command import CommandProblem
from sharpen.core.config import Marks, apply_overrides, from_dict, load_yaml
from sharpen.core.errors import ConfigError
from sharpen.core.executors import make_executor
from sharpen.core.feedback import Trial
from sharpen.core.optimizer import make_optimizer
from sharpen.core.problem import (
    Fidelity,
    Problem,
    as_constraints,
    as_objectives,
    contexts_of,
    fidelity_of,
)
from sharpen.core.problem_names import find_problem
from sharpen.core.pruners import make_pruner
from sharpen.core.space import Space
from sharpen.core.store import Store, open_store
from sharpen.core.study import Budget, Study

__all__ = ["StudyFile", "join_study", "load_problem", "load_study_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFile:
    """The keys of a study file."""

    budget: Budget
    """When to stop."""

    command: str | None = None
    """The program, with ``{name}`` for each parameter; it runs in the file's folder."""

    problem: str | dict[str, Any] | None = None
    """Instead of a program: an installed problem, or ``module:attribute`` in the file's folder; or
    a mapping of its ``name`` and arguments."""

    space: dict[str, Any] = field(default_factory=dict)
    """Parameters of the program by name: ``{x: {type: float, low: 0, high: 1}}``."""

    metrics: str = "stdout"
    """Where the program's values are: ``stdout``, ``file:PATH`` or ``regex:PATTERN``."""

    fidelity: dict[str, Any] | None = None
    """How closely the program may be asked to measure: ``{name: epochs, low: 1, high: 81}``."""

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

    executor: str | dict[str, Any] = "local"
    """Where they run: ``local`` processes, ``threads`` or a ``ray`` cluster; or a mapping of
    ``name`` and options, such as ``{name: ray, address: auto, resources: {num_gpus: 1}}``."""

    timeout_s: float | None = None
    """Seconds a trial may take."""

    memory_bytes: int | None = None
    """Address space a trial may use."""

    pruner: str | dict[str, Any] | None = None
    """Name of what stops bad trials early, or a mapping of ``name`` and its options."""

    seed: int = 0
    """Of the optimizer and the trials."""

    dedup: Literal["reuse", "reevaluate", "forbid"] = "reuse"
    """What to do with a configuration that was tried before."""

    max_attempts: int = 3
    """How often a trial is begun before it is given up."""

    retry: list[Literal["killed", "failed", "timeout"]] = field(default_factory=lambda: ["killed"])
    """What a trial is begun again for."""

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
    return _open(*_read(Path(path), overrides), callbacks=callbacks)


def load_problem(path: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Problem:
    """The program or problem of a study file; no study is opened.

    Raises:
        ConfigError: anything wrong in it, with file and line.
        MissingFileError: no such file.
    """
    return _problem(*_read(Path(path), overrides))


def _read(
    path: Path, overrides: Iterable[str] | Mapping[str, Any]
) -> tuple[StudyFile, Marks, dict[str, Any]]:
    """The file's keys, where they stand, and what a study keeps of it."""
    document = apply_overrides(load_yaml(path), overrides)
    file = from_dict(StudyFile, document.data, marks=document.marks)
    folder = str(path.absolute().parent)
    return file, document.marks, {"file": document.data, "folder": folder, "name": path.stem}


def join_study(
    store: str | Path,
    name: str,
    *,
    folder: str | Path | None = None,
    workers: int | None = None,
    trials: int | None = None,
    callbacks: Sequence[Callable[[Study, Trial], None]] = (),
) -> Study:
    """Open a study that a study file began, from its store alone, ready to run.

    Args:
        store: where it is.
        name: its name.
        folder: where its program runs; default where it ran first.
        workers: trials at once; default the file's.
        trials: a new budget of trials; default the file's.
        callbacks: called as ``callback(study, trial)`` after each trial.

    Raises:
        ConfigError: there is no such study, it was begun in Python, or the folder is not here.
        MissingFileError: there is no such store.
    """
    opened = open_store(store, create=False)
    source = opened.study(name).spec.get("source")
    if source is None:
        raise ConfigError(
            f"the study '{name}' was begun by a Python program; run that program again to join it."
        )
    source = {**source, "folder": str(folder or source["folder"])}
    if not Path(source["folder"]).is_dir():
        raise ConfigError(
            f"the study '{name}' ran in {source['folder']}, which is not here. Give --folder."
        )
    data = {**source["file"], "store": opened.url}
    if workers is not None:
        data["workers"] = workers
    if trials is not None:
        data["budget"] = {**data["budget"], "trials": trials}
    file = from_dict(StudyFile, data, marks=Marks())
    return _open(file, Marks(), source, store=opened, callbacks=callbacks)


def _open(
    file: StudyFile,
    marks: Marks,
    source: Mapping[str, Any],
    *,
    store: Store | None = None,
    callbacks: Sequence[Callable[[Study, Trial], None]] = (),
) -> Study:
    problem = _problem(file, marks, source)
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
            fidelity=fidelity_of(problem),
            contexts=contexts_of(problem),
        ),
    )
    pruner = _at(marks, ("pruner",), lambda: make_pruner(file.pruner))
    executor = _at(
        marks,
        ("executor",),
        lambda: make_executor(
            file.executor,
            workers=file.workers,
            timeout_s=file.timeout_s,
            memory_bytes=file.memory_bytes,
        ),
    )
    study = Study(
        problem,
        optimizer=optimizer,
        store=store or file.store,
        name=file.name or source["name"],
        budget=file.budget,
        executor=executor,
        pruner=pruner,
        seed=file.seed,
        dedup=file.dedup,
        retry=file.retry,
        max_attempts=file.max_attempts,
        callbacks=callbacks,
        source=source,
    )
    if file.enqueue and not study.store.study(study.name).counts:
        _at(marks, ("enqueue",), lambda: study.enqueue(file.enqueue))
    return study


def _problem(file: StudyFile, marks: Marks, source: Mapping[str, Any]) -> Problem:
    """The program or problem that a file names."""
    if (file.command is None) == (file.problem is None):
        raise ConfigError(f"{_prefix(marks, 'budget')}a study file needs command or problem.")
    if file.problem is not None:
        for key in ("space", "minimize", "maximize", "constraints", "forbid", "fidelity"):
            if getattr(file, key):
                raise ConfigError(
                    f"{_prefix(marks, key)}{key} goes with command; the problem has its own."
                )
        named = {"name": file.problem} if isinstance(file.problem, str) else dict(file.problem)
        name = named.pop("name", "")
        return cast(
            Problem,
            _at(
                marks,
                ("problem",),
                lambda: find_problem(str(name), named or None, folder=source["folder"]),
            ),
        )
    space = Space.parse(file.space, path=("space",), marks=marks)
    command = file.command
    assert command is not None
    return cast(
        Problem,
        _at(
            marks,
            ("command", "minimize", "maximize", "constraints", "forbid", "metrics", "fidelity"),
            lambda: CommandProblem(
                command,
                space.forbid(*file.forbid) if file.forbid else space,
                as_objectives(file.minimize, file.maximize),
                as_constraints(file.constraints),
                name=file.name or source["name"],
                folder=source["folder"],
                metrics=file.metrics,
                fidelity=None if file.fidelity is None else from_dict(Fidelity, file.fidelity),
            ),
        ),
    )


def _prefix(marks: Marks, key: str) -> str:
    where = marks.at((key,))
    return f"{where}: " if where else ""


def _at(marks: Marks, keys: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """Do ``make``, placing an error at the line of the key that its message names."""
    try:
        return make()
    except ConfigError as error:
        named = next((key for key in keys if key.rstrip("s") in str(error)), keys[0])
        raise ConfigError(f"{_prefix(marks, named)}{error}") from None
