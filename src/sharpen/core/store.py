"""Where studies live: tables in a SQLite file or in PostgreSQL, safe for many processes and kills.

Each process that works on a trial holds a lease on it: a random token, an expiry that a heartbeat
moves on, and the owner's process. A lease whose owner is dead, or that ran out, is taken back: the
trial is queued again with the same configuration. What was told is stored once the call returns,
and a trial ends exactly once.

::

    asking -> running -> ok | failed | timeout | infeasible | pruned | cancelled
                 ^  |
    queued ------+  +--> queued          (its worker died)
"""

from __future__ import annotations

import functools
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from sharpen.core.database import STUDY, TRACE, TRIAL, VALUE, Database
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.feedback import STATUSES, Feedback, TextFeedback, TracePoint
from sharpen.core.leases import this_process

__all__ = ["Claim", "Store", "StoredTrial", "StudyRecord", "open_store"]

Q = ParamSpec("Q")
R = TypeVar("R")
_VALUE_KINDS = ("objectives", "constraints", "std", "cost")
_ACTIVE = ("asking", "queued", "running")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A trial that is this process's to carry out, as long as its lease is renewed."""

    trial_id: int
    number: int
    token: str
    attempt: int
    config: dict[str, Any] | None
    """Its configuration; None when it is still to be asked for."""
    fidelity: float | None = None
    context: dict[str, Any] = field(default_factory=dict)
    origin: str = ""


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


def _patient(method: Callable[Q, R]) -> Callable[Q, R]:
    """Do it again when the database went away meanwhile; it must not matter if it was done."""

    @functools.wraps(method)
    def call(*given: Q.args, **named: Q.kwargs) -> R:
        store: Any = given[0]
        database: Database = store._database
        return database.patiently(lambda again: method(*given, **named))

    return call


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


class Store:
    """Studies in one database; see :func:`open_store`."""

    def __init__(self, url: str | Path, *, create: bool = True) -> None:
        self._database = _database_of(url, create)

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

    @_patient
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
            "space": _json(space),
            "objectives": _json(objectives),
            "constraints": _json(constraints),
            "seed": seed,
            "spec": _json(spec),
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
        found = self.studies()
        for record in found:
            if record.name == name:
                return record
        names = [record.name for record in found]
        raise ConfigError(
            f"the store {self.url} has no study '{name}'.{did_you_mean(name, names)} "
            f"It has: {', '.join(names) or 'none'}."
        )

    @_patient
    def studies(self) -> list[StudyRecord]:
        """Every study, oldest first, with its number of trials by state."""
        counted = sa.select(TRIAL.c.study_id, TRIAL.c.state, sa.func.count()).group_by(
            TRIAL.c.study_id, TRIAL.c.state
        )
        with self._database.read() as connection:
            rows = connection.execute(sa.select(STUDY).order_by(STUDY.c.id)).all()
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

    @_patient
    def delete_study(self, name: str) -> None:
        """Remove a study and its trials.

        Raises:
            ConfigError: there is none.
        """
        record = self.study(name)
        with self._database.write() as connection:
            connection.execute(sa.delete(STUDY).where(STUDY.c.id == record.id))

    # -- claiming -------------------------------------------------------------------------------

    @_patient
    def enqueue(self, study_id: int, configs: Sequence[tuple[dict[str, Any], str]]) -> list[int]:
        """Put configurations (with their digests) in the queue; they are carried out first.

        Returns:
            Their trial numbers.
        """
        numbers: list[int] = []
        with self._database.write() as connection:
            self._database.order(connection, study_id)
            number = _next_number(connection, study_id)
            for config, config_hash in configs:
                row = {
                    "study_id": study_id,
                    "number": number,
                    "state": "queued",
                    "config": _json(config),
                    "config_hash": config_hash,
                    "origin": "enqueued",
                    "attempt": 0,
                }
                connection.execute(sa.insert(TRIAL), row)
                numbers.append(number)
                number += 1
        return numbers

    def claim(
        self, study_id: int, *, limit: int | None, lease_s: float, max_attempts: int = 3
    ) -> Claim | None:
        """Take the next trial: a queued one, else a new number, while ``limit`` allows.

        Trials whose worker died are queued again first, or end as failed after ``max_attempts``.

        Args:
            study_id: the study.
            limit: most trials that may end (cancelled ones aside); None is no limit.
            lease_s: seconds until the lease runs out, unless renewed.
            max_attempts: how often a trial is begun before a dead worker makes it failed.

        Returns:
            The claim, or None when there is nothing to do now.
        """
        token = secrets.token_hex(8)

        def take(again: bool) -> Claim | None:
            with self._database.write() as connection:
                self._database.order(connection, study_id)
                mine = self._taken(connection, token) if again else None
                return mine or self._claim(
                    connection, study_id, token, limit, lease_s, max_attempts
                )

        return self._database.patiently(take)

    def _taken(self, connection: sa.Connection, token: str) -> Claim | None:
        """What a claim took whose answer was lost on the way."""
        row = connection.execute(sa.select(TRIAL).where(TRIAL.c.lease_token == token)).one_or_none()
        return None if row is None else _claim_of(row, token)

    def _claim(
        self,
        connection: sa.Connection,
        study_id: int,
        token: str,
        limit: int | None,
        lease_s: float,
        max_attempts: int,
    ) -> Claim | None:
        lease = {
            "lease_token": token,
            "lease_owner": this_process(),
            "lease_expires": self._database.clock() + lease_s,
        }
        orphan = self._reap(connection, study_id, max_attempts)
        if orphan is not None:
            connection.execute(sa.update(TRIAL).where(TRIAL.c.id == orphan.id).values(lease))
            return _claim_of(orphan, token)
        queued, under_way = _load(connection, study_id)
        if queued and (limit is None or under_way < limit):
            row = connection.execute(
                sa.select(TRIAL)
                .where(TRIAL.c.study_id == study_id, TRIAL.c.state == "queued")
                .order_by(TRIAL.c.number)
                .limit(1)
            ).one()
            begun = {"state": "running", "attempt": row.attempt + 1, "started": time.time()}
            connection.execute(sa.update(TRIAL).where(TRIAL.c.id == row.id).values(lease | begun))
            return replace(_claim_of(row, token), attempt=row.attempt + 1)
        if limit is not None and under_way + queued >= limit:
            return None
        number = _next_number(connection, study_id)
        new = {"study_id": study_id, "number": number, "state": "asking", **lease}
        key = connection.execute(sa.insert(TRIAL).values(new)).inserted_primary_key
        assert key is not None
        return Claim(trial_id=key[0], number=number, token=token, attempt=1, config=None)

    def _reap(
        self, connection: sa.Connection, study_id: int, max_attempts: int
    ) -> sa.Row[Any] | None:
        """Queue the trials of dead workers again; returns one that has no configuration yet."""
        rows = connection.execute(
            sa.select(TRIAL, self._database.clock().label("now"))
            .where(TRIAL.c.study_id == study_id, TRIAL.c.state.in_(("asking", "running")))
            .order_by(TRIAL.c.number)
        ).all()
        orphan: sa.Row[Any] | None = None
        for row in rows:
            if not self._database.is_lost(row.lease_owner, row.lease_expires, row.now):
                continue
            if row.state == "asking":
                orphan = orphan or row
                continue
            change: dict[str, Any] = {"state": "queued", "lease_token": None}
            if row.attempt >= max_attempts:
                change = {
                    "state": "failed",
                    "lease_token": None,
                    "finished": time.time(),
                    "revision": _next_revision(connection, study_id),
                    "error": f"its process died {row.attempt} times while it ran.",
                }
            connection.execute(sa.update(TRIAL).where(TRIAL.c.id == row.id), change)
            connection.execute(sa.delete(TRACE).where(TRACE.c.trial_id == row.id))
        return orphan

    @_patient
    def start(
        self,
        claim: Claim,
        config: Mapping[str, Any],
        config_hash: str,
        origin: str,
        *,
        fidelity: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> bool:
        """Give a claimed number its configuration; it runs from now on.

        Args:
            claim: of the number.
            config: the configuration.
            config_hash: tells equal measurements: of configuration, fidelity and context.
            origin: who proposed it.
            fidelity: how closely it is measured; None is the truth.
            context: the conditions it is measured under.

        Returns:
            Whether the lease was still ours.
        """
        change = {
            "state": "running",
            "config": _json(config),
            "config_hash": config_hash,
            "fidelity": fidelity,
            "context": _json(context) if context else None,
            "origin": origin,
            "started": time.time(),
        }
        with self._database.write() as connection:
            return connection.execute(sa.update(TRIAL).where(*_held(claim)), change).rowcount == 1

    @_patient
    def renew(self, claims: Sequence[Claim], *, lease_s: float) -> None:
        """Move the expiry of leases on; the heartbeat."""
        tokens = [claim.token for claim in claims]
        if tokens:
            change = {"lease_expires": self._database.clock() + lease_s}
            with self._database.write() as connection:
                connection.execute(
                    sa.update(TRIAL).where(TRIAL.c.lease_token.in_(tokens)).values(change)
                )

    @_patient
    def retry(self, claim: Claim) -> bool:
        """Queue a trial again that ended badly; the attempt counts.

        Returns:
            Whether the lease was still ours.
        """
        change = {"state": "queued", "lease_token": None}
        with self._database.write() as connection:
            connection.execute(sa.delete(TRACE).where(TRACE.c.trial_id == claim.trial_id))
            return connection.execute(sa.update(TRIAL).where(*_held(claim)), change).rowcount == 1

    @_patient
    def release(self, claims: Sequence[Claim]) -> None:
        """Give trials back unfinished: they are queued, and this attempt does not count."""
        with self._database.write() as connection:
            for claim in claims:
                row = connection.execute(
                    sa.select(TRIAL.c.state, TRIAL.c.attempt).where(*_held(claim))
                ).one_or_none()
                if row is None:
                    continue
                change: dict[str, Any] = {"lease_expires": -1.0}  # void: its number is asked anew
                if row.state == "running":
                    change = {"state": "queued", "lease_token": None, "attempt": row.attempt - 1}
                connection.execute(sa.update(TRIAL).where(TRIAL.c.id == claim.trial_id), change)
                connection.execute(sa.delete(TRACE).where(TRACE.c.trial_id == claim.trial_id))

    # -- outcomes -------------------------------------------------------------------------------

    @_patient
    def add_trace(self, claim: Claim, points: Sequence[TracePoint]) -> None:
        """Add points of a running trial's curve."""
        if points:
            with self._database.write() as connection:
                connection.execute(self._upsert_trace(), _trace_rows(claim.trial_id, points))

    @_patient
    def finish(self, claim: Claim, feedback: Feedback) -> bool:
        """End a trial.

        A result that comes after its lease was lost still ends the trial, unless another process
        ended it first; then the values are kept in that trial's ``info["late"]``.

        Returns:
            Whether this result is the trial's.
        """
        late = _json({k: v for k, v in feedback.objectives.items() if math.isfinite(v)})
        extra = _extra(feedback)
        values = [
            {"trial_id": claim.trial_id, "kind": kind, "name": name, "value": value}
            for kind in _VALUE_KINDS
            for name, value in getattr(feedback, kind).items()
        ]
        trace = _trace_rows(claim.trial_id, feedback.trace)
        with self._database.write() as connection:
            study = connection.execute(
                sa.select(TRIAL.c.study_id).where(TRIAL.c.id == claim.trial_id)
            ).scalar()
            if study is None:
                return False  # it was deleted meanwhile
            self._database.order(connection, study)
            row = connection.execute(
                sa.select(
                    TRIAL.c.study_id, TRIAL.c.state, TRIAL.c.lease_token, TRIAL.c.extra
                ).where(TRIAL.c.id == claim.trial_id)
            ).one()
            if row.state not in _ACTIVE and row.lease_token == claim.token:
                return True  # it was stored, and the answer was lost on the way
            if row.state not in _ACTIVE:
                kept = json.loads(row.extra or "{}")
                kept.setdefault("info", {}).setdefault("late", []).append(json.loads(late))
                connection.execute(
                    sa.update(TRIAL).where(TRIAL.c.id == claim.trial_id), {"extra": _json(kept)}
                )
                return False
            change = {
                "state": feedback.status,
                "lease_token": claim.token,
                "finished": time.time(),
                "revision": _next_revision(connection, row.study_id),
                "error": _storable(feedback.error),
                "extra": extra,
            }
            connection.execute(sa.update(TRIAL).where(TRIAL.c.id == claim.trial_id), change)
            if values:
                connection.execute(sa.insert(VALUE), values)
            if trace:
                connection.execute(self._upsert_trace(), trace)
        return True

    def _upsert_trace(self) -> Any:
        statement = self._database.insert(TRACE)
        change = {"value": statement.excluded.value, "elapsed_s": statement.excluded.elapsed_s}
        return statement.on_conflict_do_update(index_elements=["trial_id", "step"], set_=change)

    def cancel(self, claim: Claim) -> None:
        """End a trial without a result; it does not count against the budget."""
        self.finish(claim, Feedback(status="cancelled"))

    # -- reading --------------------------------------------------------------------------------

    @_patient
    def trials(self, study_id: int, *, after: int | None = None) -> list[StoredTrial]:
        """Trials that have a configuration, in number order.

        Args:
            study_id: the study.
            after: only those that ended after this revision, and those not ended.
        """
        mine = TRIAL.c.study_id == study_id
        ids: Any = sa.select(TRIAL.c.id).where(mine)
        if after is not None:
            # Two lookups by index; a condition with OR would scan the whole study.
            ids = sa.union_all(
                sa.select(TRIAL.c.id).where(mine, TRIAL.c.revision > after),
                sa.select(TRIAL.c.id).where(mine, TRIAL.c.state.in_(_ACTIVE)),
            )
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(TRIAL)
                .where(TRIAL.c.id.in_(ids), TRIAL.c.config.is_not(None))
                .order_by(TRIAL.c.number)
            ).all()
            values: dict[int, dict[str, dict[str, float]]] = {}
            traces: dict[int, list[TracePoint]] = {}
            if any(row.state in STATUSES for row in rows):
                _read_values(connection, ids, values)
                _read_traces(connection, ids, traces)
        return [_stored(row, values.get(row.id, {}), traces.get(row.id, [])) for row in rows]

    @_patient
    def same_config(self, study_id: int, config_hash: str) -> StoredTrial | None:
        """The first trial that ended well with this configuration."""
        with self._database.read() as connection:
            number = connection.execute(
                sa.select(sa.func.min(TRIAL.c.number)).where(
                    TRIAL.c.study_id == study_id,
                    TRIAL.c.config_hash == config_hash,
                    TRIAL.c.state == "ok",
                )
            ).scalar_one()
            if number is None:
                return None
            row = connection.execute(
                sa.select(TRIAL).where(TRIAL.c.study_id == study_id, TRIAL.c.number == number)
            ).one()
            values: dict[str, dict[str, float]] = {}
            for _, kind, name, value in connection.execute(
                sa.select(VALUE).where(VALUE.c.trial_id == row.id)
            ):
                values.setdefault(kind, {})[name] = value
        return _stored(row, values, [])

    @_patient
    def knows(self, study_id: int, config_hash: str) -> bool:
        """Whether the study has tried this configuration, or is about to."""
        with self._database.read() as connection:
            statement = sa.select(TRIAL.c.id).where(
                TRIAL.c.study_id == study_id, TRIAL.c.config_hash == config_hash
            )
            return connection.execute(statement.limit(1)).first() is not None

    def is_whole(self) -> bool:
        """The database's own check of its files."""
        return self._database.is_whole()


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # SQLite keeps NaN as NULL


def _read_values(
    connection: sa.Connection, ids: Any, into: dict[int, dict[str, dict[str, float]]]
) -> None:
    for trial_id, kind, name, value in connection.execute(
        sa.select(VALUE).where(VALUE.c.trial_id.in_(ids))
    ):
        into.setdefault(trial_id, {}).setdefault(kind, {})[name] = _number(value)


def _read_traces(connection: sa.Connection, ids: Any, into: dict[int, list[TracePoint]]) -> None:
    for trial_id, step, value, elapsed in connection.execute(
        sa.select(TRACE).where(TRACE.c.trial_id.in_(ids)).order_by(TRACE.c.trial_id, TRACE.c.step)
    ):
        into.setdefault(trial_id, []).append(TracePoint(step, _number(value), elapsed))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _storable(text: str | None) -> str | None:
    """Text as every database takes it: no NUL, no half of a surrogate pair."""
    if text is None:
        return None
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()


def _claim_of(row: sa.Row[Any], token: str) -> Claim:
    return Claim(
        trial_id=row.id,
        number=row.number,
        token=token,
        attempt=row.attempt,
        config=None if row.config is None else json.loads(row.config),
        fidelity=row.fidelity,
        context=json.loads(row.context or "{}"),
        origin=row.origin,
    )


def _held(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return TRIAL.c.id == claim.trial_id, TRIAL.c.lease_token == claim.token


def _load(connection: sa.Connection, study_id: int) -> tuple[int, int]:
    """Number of queued trials, and of those begun or ended but not cancelled.

    Every ending takes the next revision, so the last one tells how many there were: no table scan.
    """
    rows = connection.execute(
        sa.select(TRIAL.c.state, sa.func.count())
        .where(TRIAL.c.study_id == study_id, TRIAL.c.state.in_((*_ACTIVE, "cancelled")))
        .group_by(TRIAL.c.state)
    )
    counts = {str(row[0]): int(row[1]) for row in rows}
    ended = _next_revision(connection, study_id) - 1 - counts.get("cancelled", 0)
    return counts.get("queued", 0), ended + counts.get("asking", 0) + counts.get("running", 0)


def _next_number(connection: sa.Connection, study_id: int) -> int:
    statement = sa.select(sa.func.max(TRIAL.c.number)).where(TRIAL.c.study_id == study_id)
    last = connection.execute(statement).scalar_one()
    return 0 if last is None else int(last) + 1


def _next_revision(connection: sa.Connection, study_id: int) -> int:
    statement = sa.select(sa.func.max(TRIAL.c.revision)).where(TRIAL.c.study_id == study_id)
    return int(connection.execute(statement).scalar_one() or 0) + 1


def _trace_rows(trial_id: int, points: Sequence[TracePoint]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "step": p.step, "value": p.value, "elapsed_s": p.elapsed_s}
        for p in points
    ]


def _extra(feedback: Feedback) -> str | None:
    parts = {
        "info": dict(feedback.info),
        "gradients": {k: dict(v) for k, v in feedback.gradients.items()},
        "text": [{"body": t.body, "kind": t.kind, "score": t.score} for t in feedback.text],
    }
    kept = {key: part for key, part in parts.items() if part}
    return _json(kept) if kept else None


def _stored(
    row: sa.Row[Any], values: dict[str, dict[str, float]], trace: list[TracePoint]
) -> StoredTrial:
    feedback: Feedback | None = None
    if row.state in STATUSES:
        extra = json.loads(row.extra) if row.extra else {}
        feedback = Feedback(
            **{kind: values.get(kind, {}) for kind in _VALUE_KINDS},
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
        context=json.loads(row.context or "{}"),
        origin=row.origin,
        attempt=row.attempt,
        started_s=row.started,
        finished_s=row.finished,
        revision=row.revision or 0,
        feedback=feedback,
    )
