"""Trials as work to be shared out: claimed, begun, renewed, given back, ended.

Each process that works on a trial holds a lease on it: a random token, an expiry that a heartbeat
moves on, and the owner's process. A lease whose owner is dead, or that ran out, is taken back: the
trial is queued again with the same configuration. What was told is stored once the call returns,
and a trial ends exactly once.

::

    asking -> running -> ok | failed | timeout | infeasible | pruned | cancelled
                 ^  |
    queued ------+  +--> queued          (its worker died)

Statements are built once: building one costs as much as carrying it out.
"""

from __future__ import annotations

import functools
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from sharpen.core.database import TRACE, TRIAL, VALUE, Database
from sharpen.core.feedback import Feedback, TracePoint
from sharpen.core.leases import this_process

__all__ = ["ACTIVE", "VALUE_KINDS", "Claim", "TrialQueue", "as_json", "patient"]

Q = ParamSpec("Q")
R = TypeVar("R")
VALUE_KINDS = ("objectives", "constraints", "std", "cost")
ACTIVE = ("asking", "queued", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A trial that is this process's to carry out, as long as its lease is renewed."""

    study_id: int
    trial_id: int
    number: int
    token: str
    attempt: int
    config: dict[str, Any] | None
    """Its configuration; None when it is still to be asked for."""
    fidelity: float | None = None
    context: dict[str, Any] = field(default_factory=dict)
    origin: str = ""


def patient(method: Callable[Q, R]) -> Callable[Q, R]:
    """Do it again when the database went away meanwhile; it must not matter if it was done."""

    @functools.wraps(method)
    def call(*given: Q.args, **named: Q.kwargs) -> R:
        queue: Any = given[0]
        database: Database = queue._database
        return database.patiently(lambda again: method(*given, **named))

    return call


class _Statements:
    """What a queue asks of its database, by the parameters study, trial, token and number."""

    def __init__(self, database: Database) -> None:
        study = TRIAL.c.study_id == sa.bindparam("study")
        this = TRIAL.c.id == sa.bindparam("trial")
        held = (this, TRIAL.c.lease_token == sa.bindparam("held"))

        def count(*states: str) -> Any:
            mine = sa.select(sa.func.count()).where(study, TRIAL.c.state.in_(states))
            return mine.scalar_subquery()

        def last(column: sa.Column[int]) -> Any:
            return sa.select(sa.func.max(column)).where(study).scalar_subquery()

        self.last_revision = sa.select(last(TRIAL.c.revision))
        self.last_number = sa.select(last(TRIAL.c.number))
        # Every ending takes the next revision, so the last one tells how many there were.
        self.load = sa.select(
            count("queued").label("queued"),
            count("asking", "running").label("begun"),
            count("cancelled").label("cancelled"),
            last(TRIAL.c.revision).label("revision"),
            last(TRIAL.c.number).label("number"),
        )
        self.begun = (
            sa.select(TRIAL, database.clock.label("now"))
            .where(study, TRIAL.c.state.in_(("asking", "running")))
            .order_by(TRIAL.c.number)
        )
        self.queued = (
            sa.select(TRIAL)
            .where(study, TRIAL.c.state == "queued")
            .order_by(TRIAL.c.number)
            .limit(1)
        )
        self.by_token = sa.select(TRIAL).where(TRIAL.c.lease_token == sa.bindparam("token"))
        self.state = sa.select(TRIAL.c.state, TRIAL.c.lease_token, TRIAL.c.extra).where(this)
        self.state_held = sa.select(TRIAL.c.state, TRIAL.c.attempt).where(*held)
        self.forget_trace = sa.delete(TRACE).where(TRACE.c.trial_id == sa.bindparam("trial"))
        self.change = sa.update(TRIAL).where(this)
        self.change_held = sa.update(TRIAL).where(*held)
        expiry = database.clock + sa.bindparam("lease_s", type_=sa.Float())
        lease = {"lease_expires": expiry}
        self.lease = sa.update(TRIAL).where(this).values(lease)
        tokens: Any = sa.bindparam("tokens", expanding=True)
        self.renew = sa.update(TRIAL).where(TRIAL.c.lease_token.in_(tokens)).values(lease)
        self.add = sa.insert(TRIAL).values(lease)
        trace = database.insert(TRACE)
        self.add_trace = trace.on_conflict_do_update(
            index_elements=["trial_id", "step"],
            set_={"value": trace.excluded.value, "elapsed_s": trace.excluded.elapsed_s},
        )
        self.add_values = sa.insert(VALUE)


class TrialQueue:
    """The trials of a database's studies as work; base of :class:`~sharpen.core.store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._do = _Statements(database)

    # -- taking ---------------------------------------------------------------------------------

    @patient
    def enqueue(self, study_id: int, configs: Sequence[tuple[dict[str, Any], str]]) -> list[int]:
        """Put configurations (with their digests) in the queue; they are carried out first.

        Returns:
            Their trial numbers.
        """
        with self._database.write() as connection:
            self._database.order(connection, study_id)
            last = connection.execute(self._do.last_number, {"study": study_id}).scalar_one()
            first = 0 if last is None else last + 1
            rows: list[dict[str, Any]] = [
                {
                    "study_id": study_id,
                    "number": number,
                    "state": "queued",
                    "config": as_json(config),
                    "config_hash": config_hash,
                    "origin": "enqueued",
                    "attempt": 0,
                }
                for number, (config, config_hash) in enumerate(configs, first)
            ]
            if rows:
                connection.execute(sa.insert(TRIAL), rows)
        return [row["number"] for row in rows]

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
                if again:  # what was taken when the answer was lost
                    row = connection.execute(self._do.by_token, {"token": token}).one_or_none()
                    if row is not None:
                        return _claim_of(row, token)
                return self._take(connection, study_id, token, limit, lease_s, max_attempts)

        return self._database.patiently(take)

    def _take(
        self,
        connection: sa.Connection,
        study_id: int,
        token: str,
        limit: int | None,
        lease_s: float,
        max_attempts: int,
    ) -> Claim | None:
        of_study = {"study": study_id}
        lease = {"lease_token": token, "lease_owner": this_process(), "lease_s": lease_s}
        orphan = self._reap(connection, study_id, max_attempts)
        if orphan is not None:
            connection.execute(self._do.lease, {"trial": orphan.id, **lease})
            return _claim_of(orphan, token)
        load = connection.execute(self._do.load, of_study).one()
        under_way = load.begun + (load.revision or 0) - load.cancelled
        if load.queued and (limit is None or under_way < limit):
            row = connection.execute(self._do.queued, of_study).one()
            begun = {"state": "running", "attempt": row.attempt + 1, "started": time.time()}
            connection.execute(self._do.lease, {"trial": row.id, **lease, **begun})
            return replace(_claim_of(row, token), attempt=row.attempt + 1)
        if limit is not None and under_way + load.queued >= limit:
            return None
        number = 0 if load.number is None else load.number + 1
        new = {"study_id": study_id, "number": number, "state": "asking", **lease}
        key = connection.execute(self._do.add, new).inserted_primary_key
        assert key is not None
        return Claim(
            study_id=study_id,
            trial_id=key[0],
            number=number,
            token=token,
            attempt=1,
            config=None,
        )

    def _reap(
        self, connection: sa.Connection, study_id: int, max_attempts: int
    ) -> sa.Row[Any] | None:
        """Queue the trials of dead workers again; returns one that has no configuration yet."""
        orphan: sa.Row[Any] | None = None
        for row in connection.execute(self._do.begun, {"study": study_id}).all():
            if not self._database.is_lost(row.lease_owner, row.lease_expires, row.now):
                continue
            if row.state == "asking":
                orphan = orphan or row
                continue
            change: dict[str, Any] = {"state": "queued", "lease_token": None}
            if row.attempt >= max_attempts:
                change |= {
                    "state": "failed",
                    "finished": time.time(),
                    "revision": self._next_revision(connection, study_id),
                    "error": f"its process died {row.attempt} times while it ran.",
                }
            connection.execute(self._do.change, {"trial": row.id, **change})
            connection.execute(self._do.forget_trace, {"trial": row.id})
        return orphan

    @patient
    def lost(self, study_id: int) -> list[int]:
        """Numbers of trials whose worker is gone, in order; the next :meth:`claim` queues them."""
        with self._database.read() as connection:
            rows = connection.execute(self._do.begun, {"study": study_id}).all()
        gone = (
            row.number
            for row in rows
            if self._database.is_lost(row.lease_owner, row.lease_expires, row.now)
        )
        return sorted(gone)

    def _next_revision(self, connection: sa.Connection, study_id: int) -> int:
        last = connection.execute(self._do.last_revision, {"study": study_id}).scalar_one()
        return int(last or 0) + 1

    # -- holding --------------------------------------------------------------------------------

    @patient
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
            **_held(claim),
            "state": "running",
            "config": as_json(config),
            "config_hash": config_hash,
            "fidelity": fidelity,
            "context": as_json(context) if context else None,
            "origin": origin,
            "started": time.time(),
        }
        with self._database.write() as connection:
            return connection.execute(self._do.change_held, change).rowcount == 1

    @patient
    def renew(self, claims: Sequence[Claim], *, lease_s: float) -> None:
        """Move the expiry of leases on; the heartbeat."""
        tokens = [claim.token for claim in claims]
        if tokens:
            with self._database.write() as connection:
                connection.execute(self._do.renew, {"tokens": tokens, "lease_s": lease_s})

    @patient
    def retry(self, claim: Claim) -> bool:
        """Queue a trial again that ended badly; the attempt counts.

        Returns:
            Whether the lease was still ours.
        """
        change = {**_held(claim), "state": "queued", "lease_token": None}
        with self._database.write() as connection:
            connection.execute(self._do.forget_trace, {"trial": claim.trial_id})
            return connection.execute(self._do.change_held, change).rowcount == 1

    @patient
    def release(self, claims: Sequence[Claim]) -> None:
        """Give trials back unfinished: they are queued, and this attempt does not count."""
        with self._database.write() as connection:
            for claim in claims:
                row = connection.execute(self._do.state_held, _held(claim)).one_or_none()
                if row is None:
                    continue
                change: dict[str, Any] = {"lease_expires": -1.0}  # void: its number is asked anew
                if row.state == "running":
                    change = {"state": "queued", "lease_token": None, "attempt": row.attempt - 1}
                connection.execute(self._do.change, {"trial": claim.trial_id, **change})
                connection.execute(self._do.forget_trace, {"trial": claim.trial_id})

    @patient
    def add_trace(self, claim: Claim, points: Sequence[TracePoint]) -> None:
        """Add points of a running trial's curve."""
        if points:
            with self._database.write() as connection:
                connection.execute(self._do.add_trace, _trace_rows(claim.trial_id, points))

    # -- ending ---------------------------------------------------------------------------------

    @patient
    def finish(self, claim: Claim, feedback: Feedback) -> bool:
        """End a trial.

        A result that comes after its lease was lost still ends the trial, unless another process
        ended it first; then the values are kept in that trial's ``info["late"]``.

        Returns:
            Whether this result is the trial's.
        """
        of_trial, extra = {"trial": claim.trial_id}, _extra(feedback)
        values = [
            {"trial_id": claim.trial_id, "kind": kind, "name": name, "value": value}
            for kind in VALUE_KINDS
            for name, value in getattr(feedback, kind).items()
        ]
        trace = _trace_rows(claim.trial_id, feedback.trace)
        with self._database.write() as connection:
            self._database.order(connection, claim.study_id)
            row = connection.execute(self._do.state, of_trial).one_or_none()
            if row is None:
                return False  # the study was deleted meanwhile
            if row.state not in ACTIVE and row.lease_token == claim.token:
                return True  # it was stored, and the answer was lost on the way
            if row.state not in ACTIVE:
                kept = json.loads(row.extra or "{}")
                late = {k: v for k, v in feedback.objectives.items() if math.isfinite(v)}
                kept.setdefault("info", {}).setdefault("late", []).append(late)
                connection.execute(self._do.change, {**of_trial, "extra": as_json(kept)})
                return False
            change = {
                **of_trial,
                "state": feedback.status,
                "lease_token": claim.token,
                "finished": time.time(),
                "revision": self._next_revision(connection, claim.study_id),
                "error": _storable(feedback.error),
                "extra": extra,
            }
            connection.execute(self._do.change, change)
            if values:
                connection.execute(self._do.add_values, values)
            if trace:
                connection.execute(self._do.add_trace, trace)
        return True

    def cancel(self, claim: Claim) -> None:
        """End a trial without a result; it does not count against the budget."""
        self.finish(claim, Feedback(status="cancelled"))


def as_json(value: Any) -> str:
    """Compact JSON; NaN and infinities are errors."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _storable(text: str | None) -> str | None:
    """Text as every database takes it: no NUL, no half of a surrogate pair."""
    if text is None:
        return None
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()


def _claim_of(row: sa.Row[Any], token: str) -> Claim:
    return Claim(
        study_id=row.study_id,
        trial_id=row.id,
        number=row.number,
        token=token,
        attempt=row.attempt,
        config=None if row.config is None else json.loads(row.config),
        fidelity=row.fidelity,
        context=json.loads(row.context or "{}"),
        origin=row.origin,
    )


def _held(claim: Claim) -> dict[str, Any]:
    """Parameters of what is only done while the lease is ours."""
    return {"trial": claim.trial_id, "held": claim.token}


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
    return as_json(kept) if kept else None
