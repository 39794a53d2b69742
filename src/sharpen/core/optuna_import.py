"""Studies of Optuna's relational storage, taken over into a store: space, trials, curves.

The tables are read directly (format of Optuna 3 to 5), so Optuna need not be installed. Optuna
keeps no space, only what each trial drew; the space here is that of all trials together. A
parameter that some trials lack is active where one other parameter has the values that it was seen
with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sharpen.core.conditions import In
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, did_you_mean
from sharpen.core.feedback import Feedback, Status, TracePoint
from sharpen.core.parameters import Bool, Categorical, Parameter
from sharpen.core.problem import Objective
from sharpen.core.space import Space
from sharpen.core.spaces.optuna import parameter_from_optuna
from sharpen.core.store import Store, open_store
from sharpen.core.study_view import StudyView, as_plain, load_study

__all__ = ["import_optuna"]

_STATES: dict[str, Status] = {"COMPLETE": "ok", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(slots=True)
class _Trial:
    """A trial as Optuna keeps it."""

    number: int
    state: str
    params: dict[str, Any]
    distributions: dict[str, dict[str, Any]]
    values: list[float]
    trace: list[TracePoint]
    seconds: float | None


def import_optuna(
    url: str,
    study: str | None = None,
    *,
    store: str | Path | Store = "sqlite:///study.db",
    name: str | None = None,
) -> StudyView:
    """Take a study of Optuna over; running one of that name with the same space goes on from it.

    Args:
        url: Optuna's storage, such as ``sqlite:///optuna.db``, or a SQLite file.
        study: its name there; None takes the only one.
        store: where it goes.
        name: its name there; default the same.

    Returns:
        The study; its trials keep their order and get numbers from 0.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it holds no tables of Optuna.
        ConfigError: there is no such study, the store has one of that name already, or what its
            trials drew is no space: a range that changed, or a condition on several parameters.
    """
    found, directions, trials = _read(url, study)
    finished = [trial for trial in trials if trial.state in _STATES and trial.params]
    if not finished:
        raise ConfigError(f"the study '{found}' in {url} has no finished trial to take over.")
    space = _space_of(finished)
    opened = open_store(store)
    name = name or found
    if name in [record.name for record in opened.studies()]:
        raise ConfigError(f"the store {opened.url} has a study '{name}' already. Give --name.")
    objectives = [
        Objective(f"value{i}" if i else "value", "max" if direction == "MAXIMIZE" else "min")
        for i, direction in enumerate(directions)
    ]
    record = opened.create_study(
        name,
        space=space.to_dict(),
        objectives=as_plain(objectives),
        constraints=[],
        seed=0,
        spec={"optimizer": "optuna"},
    )
    for trial in finished:
        claim = opened.claim(record.id, limit=None, lease_s=60.0)
        assert claim is not None
        config = space.validate(trial.params)
        opened.start(claim, config, space.digest(config), "optuna")
        named = {o.name: v for o, v in zip(objectives, trial.values, strict=False)}
        opened.finish(
            claim,
            Feedback(
                objectives=named,
                status=_STATES[trial.state],
                trace=trial.trace,
                cost={} if trial.seconds is None else {"seconds": trial.seconds},
                info={"optuna_number": trial.number},
                error="it failed in Optuna." if trial.state == "FAIL" else None,
            ),
        )
    return load_study(opened, name)


def _read(url: str, wanted: str | None) -> tuple[str, list[str], list[_Trial]]:
    """Name, directions and trials of a study."""
    if "://" not in url:
        url = f"sqlite:///{url}"
    address = sa.make_url(url)
    if address.drivername == "sqlite" and not Path(address.database or "").is_file():
        raise MissingFileError(f"no such file: {address.database}")
    engine = sa.create_engine(address)
    try:
        with engine.connect() as connection:
            tables = set(sa.inspect(connection).get_table_names())
            if not {"studies", "trials", "trial_params", "trial_values"} <= tables:
                raise FileFormatError(f"{url} holds no tables of Optuna.")
            rows = connection.exec_driver_sql("SELECT study_name, study_id FROM studies")
            names: dict[str, int] = {row[0]: row[1] for row in rows}
            if wanted is None and len(names) != 1:
                raise ConfigError(f"{url} has the studies {', '.join(sorted(names))}; name one.")
            study = wanted or next(iter(names))
            if study not in names:
                raise ConfigError(
                    f"{url} has no study '{study}'.{did_you_mean(study, names)} "
                    f"It has: {', '.join(sorted(names))}."
                )
            directions = connection.execute(
                sa.text(
                    "SELECT direction FROM study_directions WHERE study_id = :id ORDER BY objective"
                ),
                {"id": names[study]},
            ).scalars()
            return study, list(directions), _read_trials(connection, names[study])
    except sa.exc.DatabaseError as error:
        raise FileFormatError(f"{url} cannot be read as Optuna's: {error.orig}.") from None
    finally:
        engine.dispose()


def _read_trials(connection: sa.Connection, study_id: int) -> list[_Trial]:
    def rows(columns: str, table: str, order: str) -> Iterable[Any]:
        return connection.execute(
            sa.text(
                f"SELECT {columns} FROM {table} WHERE trial_id IN "
                f"(SELECT trial_id FROM trials WHERE study_id = :id) ORDER BY {order}"
            ),
            {"id": study_id},
        )

    trials: dict[int, _Trial] = {}
    columns = "trial_id, number, state, datetime_start, datetime_complete"
    for key, number, state, begun, ended in rows(columns, "trials", "number"):
        seconds = _seconds(begun, ended)
        trials[key] = _Trial(number, state, {}, {}, [], [], seconds)
    columns = "trial_id, param_name, param_value, distribution_json"
    for key, name, value, text in rows(columns, "trial_params", "param_id"):
        distribution = json.loads(text)
        trials[key].distributions[name] = distribution
        trials[key].params[name] = _value(distribution, value)
    columns = "trial_id, value, value_type"
    for key, value, kind in rows(columns, "trial_values", "objective"):
        trials[key].values.append(_number(value, kind))
    columns = "trial_id, step, intermediate_value, intermediate_value_type"
    for key, step, value, kind in rows(columns, "trial_intermediate_values", "step"):
        trials[key].trace.append(TracePoint(step, _number(value, kind)))
    return list(trials.values())


def _seconds(begun: Any, ended: Any) -> float | None:
    if begun is None or ended is None:
        return None
    from datetime import datetime

    first, last = (
        t if isinstance(t, datetime) else datetime.fromisoformat(t) for t in (begun, ended)
    )
    return (last - first).total_seconds()


def _number(value: float | None, kind: str) -> float:
    """Optuna keeps infinities and NaN beside the number."""
    return {"INF_POS": float("inf"), "INF_NEG": float("-inf")}.get(
        kind, float("nan") if value is None else value
    )


def _value(distribution: Mapping[str, Any], stored: float) -> Any:
    """A parameter's value from Optuna's internal number."""
    attributes = distribution["attributes"]
    if distribution["name"] == "CategoricalDistribution":
        return attributes["choices"][int(stored)]
    return int(stored) if "Int" in distribution["name"] else float(stored)


def _space_of(trials: Sequence[_Trial]) -> Space:
    """The space that all trials drew from."""
    seen: dict[str, dict[str, Any]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            if seen.setdefault(name, distribution) != distribution:
                raise ConfigError(
                    f"the range of '{name}' changes from trial to trial; that is no space. Give "
                    "the study that you go on with the widest, and enqueue the best trials."
                )
    parameters = {
        name: parameter_from_optuna(name, distribution) for name, distribution in seen.items()
    }
    for name in parameters:
        having = [trial for trial in trials if name in trial.params]
        if len(having) < len(trials):
            parameters[name] = parameters[name].active_if(_condition(name, parameters, trials))
    return Space(parameters)


def _condition(name: str, parameters: Mapping[str, Parameter], trials: Sequence[_Trial]) -> Any:
    """The one parameter whose values decide whether a trial has ``name``."""
    for other, parameter in parameters.items():
        if other == name or not isinstance(parameter, (Categorical, Bool)):
            continue
        with_it = {t.params.get(other) for t in trials if name in t.params}
        without = {t.params.get(other) for t in trials if name not in t.params}
        if None not in with_it and not with_it & without:
            return In(other, sorted(with_it, key=str))
    raise ConfigError(f"'{name}' is in some trials only, and no single parameter decides in which.")
