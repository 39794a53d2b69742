"""Where studies live: tables in a SQLite file or in PostgreSQL, safe for many processes and kills.

How trials are shared out among processes is in :mod:`sharpen.core.trial_queue`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sharpen.core.database import STUDY, TRACE, TRIAL, VALUE, Database
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.feedback import STATUSES, Feedback, TextFeedback, TracePoint
from sharpen.core.trial_queue import ACTIVE, VALUE_KINDS, Claim, TrialQueue, as_json, patient

__all__ = ["Claim", "Store", "StoredTrial", "StudyRecord", "open_store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study as the store knows it; the parts are plain data."""

    id: int
    name: str
    space: dict[str, Any]
    objectives: list[dict[str, Any]]
    constraints: list[dict[str, Any]]
    seed: int
    spec: dict[str, Any]
    created_s: float
    counts: dict[str, int]
    """Number of trials by state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial as the store knows it."""

    id: int
    number: int
    state: str
    config: dict[str, Any] | None
    fidelity: float | None
    context: dict[str, Any]
    origin: str
    attempt: int
    started_s: float | None
    finished_s: float | None
    revision: int
    """Position in the order of endings; 0 while it has not ended."""
    feedback: Feedback | None


class _Part:
    """Statements that read the trials with the ids that ``ids`` selects, and what belongs to them.

    Built once: building one costs as much as carrying it out.
    """

    def __init__(self, ids: Any) -> None:
        self.trials = (
            sa.select(TRIAL)
            .where(TRIAL.c.id.in_(ids), TRIAL.c.config.is_not(None))
            .order_by(TRIAL.c.number)
        )
        self.values = sa.select(VALUE).where(VALUE.c.trial_id.in_(ids))
        self.traces = (
            sa.select(TRACE)
            .where(TRACE.c.trial_id.in_(ids))
            .order_by(TRACE.c.trial_id, TRACE.c.step)
        )


_MINE = sa.select(TRIAL.c.id).where(TRIAL.c.study_id == sa.bindparam("study"))
_ALL = _Part(_MINE)
_NEW = _Part(  # two lookups by index; a condition with OR would scan the whole study
    sa.union_all(
        _MINE.where(TRIAL.c.revision > sa.bindparam("after")),
        _MINE.where(TRIAL.c.state.in_(ACTIVE)),
    )
)
_SAME = _MINE.where(TRIAL.c.config_hash == sa.bindparam("hash")).limit(1)
_SAME_AND_OK = (
    sa.select(TRIAL)
    .where(
        TRIAL.c.study_id == sa.bindparam("study"),
        TRIAL.c.config_hash == sa.bindparam("hash"),
        TRIAL.c.state == "ok",
    )
    .order_by(TRIAL.c.number)
    .limit(1)
)
_VALUES_OF_ONE = sa.select(VALUE).where(VALUE.c.trial_id == sa.bindparam("trial"))


def open_store(url: str | Path | Store, *, create: bool = True) -> Store:
    """Open a store.

    Args:
        url: ``sqlite:///study.db`` (relative), ``sqlite:////data/study.db`` (absolute),
            ``sqlite://`` (in memory, gone with the process), a file's path,
            ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``, or an open store.
        create: whether to make a file, or tables, that do not exist.

    Raises:
        ConfigError: another kind of URL, a file on a network file system, or a database that does
            not exist or does not let this user in.
        MissingFileError: no such file or no tables, and ``create`` is false.
        FileFormatError: the file is damaged, another program's, or of a newer version.
        StorageError: it cannot be written or reached.
        DependencyNotInstalled: PostgreSQL without its driver (extra ``postgres``).
    """
    return url if isinstance(url, Store) else Store(url, create=create)


def _database_of(url: str | Path, create: bool) -> Database:
    kind = str(url).partition("://")[0] if "://" in str(url) else "sqlite"
    if kind == "sqlite":
        from sharpen.core.sqlite import SqliteDatabase

        return SqliteDatabase(url, create=create)
    if kind in ("postgresql", "postgres", "postgresql+pg8000"):
        from sharpen.core.postgres import PostgresDatabase

        return PostgresDatabase(str(url), create=create)
    raise ConfigError(
        f"a store of kind '{kind}' is not supported. Use sqlite:///FILE, for example "
        "sqlite:///study.db, or postgresql://USER@HOST/DATABASE."
    )


class Store(TrialQueue):
    """Studies in one database; see :func:`open_store`."""

    def __init__(self, url: str | Path, *, create: bool = True) -> None:
        super().__init__(_database_of(url, create))

    @property
    def path(self) -> Path | None:
        """The file; None is in memory or on a server."""
        return self._database.path

    @property
    def url(self) -> str:
        """The store's URL."""
        return self._database.url

    def close(self) -> None:
        """Close the connections of this process."""
        self._database.close()

    # -- studies --------------------------------------------------------------------------------

    @patient
    def create_study(
        self,
        name: str,
        *,
        space: Mapping[str, Any],
        objectives: Sequence[Mapping[str, Any]],
        constraints: Sequence[Mapping[str, Any]],
        seed: int,
        spec: Mapping[str, Any],
    ) -> StudyRecord:
        """The study called ``name``, made if there is none; an existing one stays as it is."""
        statement = self._database.insert(STUDY).on_conflict_do_nothing()
        row = {
            "name": name,
            "space": as_json(space),
            "objectives": as_json(objectives),
            "constraints": as_json(constraints),
            "seed": seed,
            "spec": as_json(spec),
            "created": time.time(),
        }
        with self._database.write() as connection:
            connection.execute(statement, row)
        return self.study(name)

    def study(self, name: str) -> StudyRecord:
        """The study called ``name``.

        Raises:
            ConfigError: there is none; the message lists those there are.
        """
        found = self._records(STUDY.c.name == name)
        if found:
            return found[0]
        names = [record.name for record in self.studies()]
        raise ConfigError(
            f"the store {self.url} has no study '{name}'.{did_you_mean(name, names)} "
            f"It has: {', '.join(names) or 'none'}."
        )

    def studies(self) -> list[StudyRecord]:
        """Every study, oldest first, with its number of trials by state."""
        return self._records()

    @patient
    def _records(self, *where: Any) -> list[StudyRecord]:
        chosen = sa.select(STUDY).where(*where).order_by(STUDY.c.id)
        counted = sa.select(TRIAL.c.study_id, TRIAL.c.state, sa.func.count()).group_by(
            TRIAL.c.study_id, TRIAL.c.state
        )
        if where:
            counted = counted.where(TRIAL.c.study_id.in_(sa.select(STUDY.c.id).where(*where)))
        with self._database.read() as connection:
            rows = connection.execute(chosen).all()
            counts: dict[int, dict[str, int]] = {}
            for study_id, state, count in connection.execute(counted):
                counts.setdefault(study_id, {})[state] = count
        return [
            StudyRecord(
                id=row.id,
                name=row.name,
                space=json.loads(row.space),
                objectives=json.loads(row.objectives),
                constraints=json.loads(row.constraints),
                seed=row.seed,
                spec=json.loads(row.spec),
                created_s=row.created,
                counts=counts.get(row.id, {}),
            )
            for row in rows
        ]

    @patient
    def delete_study(self, name: str) -> None:
        """Remove a study and its trials.

        Raises:
            ConfigError: there is none.
        """
        record = self.study(name)
        with self._database.write() as connection:
            connection.execute(sa.delete(STUDY).where(STUDY.c.id == record.id))

    # -- reading --------------------------------------------------------------------------------

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection with one consistent view, for queries of one's own."""
        return self._database.read()

    @patient
    def trials(self, study_id: int, *, after: int | None = None) -> list[StoredTrial]:
        """Trials that have a configuration, in number order.

        Args:
            study_id: the study.
            after: only those that ended after this revision, and those not ended.
        """
        part = _ALL if after is None else _NEW
        given = {"study": study_id, "after": after}
        with self._database.read() as connection:
            rows = connection.execute(part.trials, given).all()
            values: dict[int, dict[str, dict[str, float]]] = {}
            traces: dict[int, list[TracePoint]] = {}
            if any(row.state in STATUSES for row in rows):
                for trial_id, kind, name, value in connection.execute(part.values, given):
                    values.setdefault(trial_id, {}).setdefault(kind, {})[name] = _number(value)
                for trial_id, step, value, elapsed in connection.execute(part.traces, given):
                    point = TracePoint(step, _number(value), elapsed)
                    traces.setdefault(trial_id, []).append(point)
        return [_stored(row, values.get(row.id, {}), traces.get(row.id, ())) for row in rows]

    @patient
    def same_config(self, study_id: int, config_hash: str) -> StoredTrial | None:
        """The first trial that ended well with this configuration."""
        with self._database.read() as connection:
            row = connection.execute(
                _SAME_AND_OK, {"study": study_id, "hash": config_hash}
            ).one_or_none()
            if row is None:
                return None
            values: dict[str, dict[str, float]] = {}
            for _, kind, name, value in connection.execute(_VALUES_OF_ONE, {"trial": row.id}):
                values.setdefault(kind, {})[name] = value
        return _stored(row, values, ())

    @patient
    def knows(self, study_id: int, config_hash: str) -> bool:
        """Whether the study has tried this configuration, or is about to."""
        with self._database.read() as connection:
            given = {"study": study_id, "hash": config_hash}
            return connection.execute(_SAME, given).first() is not None

    def is_whole(self) -> bool:
        """The database's own check of its files."""
        return self._database.is_whole()


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # SQLite keeps NaN as NULL


def _stored(
    row: sa.Row[Any], values: dict[str, dict[str, float]], trace: Sequence[TracePoint]
) -> StoredTrial:
    feedback: Feedback | None = None
    if row.state in STATUSES:
        extra = json.loads(row.extra) if row.extra else {}
        feedback = Feedback(
            **{kind: values.get(kind, {}) for kind in VALUE_KINDS},
            gradients=extra.get("gradients", {}),
            text=tuple(TextFeedback(**t) for t in extra.get("text", ())),
            trace=tuple(trace),
            status=row.state,
            error=row.error,
            info=extra.get("info", {}),
        )
    return StoredTrial(
        id=row.id,
        number=row.number,
        state=row.state,
        config=json.loads(row.config),
        fidelity=row.fidelity,
        context=json.loads(row.context) if row.context else {},
        origin=row.origin,
        attempt=row.attempt,
        started_s=row.started,
        finished_s=row.finished,
        revision=row.revision or 0,
        feedback=feedback,
    )
