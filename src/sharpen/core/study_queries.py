"""What a page shows of a study, each answer bounded however many trials there are.

Nothing here reads all trials into memory: sums, best-so-far and thinning are done in SQL.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from sharpen.core.database import TRACE, TRIAL, VALUE
from sharpen.core.feedback import Feedback, Trial
from sharpen.core.problem import Objective
from sharpen.core.study_view import StudyView
from sharpen.core.trial_queue import ACTIVE

__all__ = ["StudyQueries"]

_POINTS = 2000
_MOST_ROWS = 500


class StudyQueries:
    """Bounded answers about one study.

    Args:
        study: opened for reading.
    """

    def __init__(self, study: StudyView) -> None:
        self._study = study
        self._store = study.store
        self._mine = TRIAL.c.study_id == study.id

    def version(self) -> str:
        """Changes whenever a trial begins or ends."""
        with self._store.reading() as connection:
            ended = connection.execute(
                sa.select(sa.func.max(TRIAL.c.revision)).where(self._mine)
            ).scalar()
            active = connection.execute(
                sa.select(sa.func.count(), sa.func.max(TRIAL.c.id)).where(
                    self._mine, TRIAL.c.state.in_(ACTIVE)
                )
            ).one()
        return f"{ended or 0}-{active[0]}-{active[1] or 0}"

    def counts(self) -> dict[str, int]:
        """Number of trials by state."""
        with self._store.reading() as connection:
            rows = connection.execute(
                sa.select(TRIAL.c.state, sa.func.count())
                .where(self._mine, TRIAL.c.state != "asking")
                .group_by(TRIAL.c.state)
            )
            return {str(state): int(count) for state, count in rows}

    def _good(self) -> list[Any]:
        """Conditions on trials that ended well, keep every constraint and measured the truth."""
        found: list[Any] = [self._mine, TRIAL.c.state == "ok"]
        if self._study.fidelity is not None:
            found.append(
                TRIAL.c.fidelity.is_(None) | (TRIAL.c.fidelity == self._study.fidelity.high)
            )
        for constraint in self._study.constraints:
            value = VALUE.alias()
            compare = {"<=": "__le__", "<": "__lt__", ">=": "__ge__", ">": "__gt__"}[constraint.op]
            kept = getattr(value.c.value, compare)(constraint.bound)
            found.append(
                sa.exists().where(
                    value.c.trial_id == TRIAL.c.id,
                    value.c.kind == "constraints",
                    value.c.name == constraint.name,
                    kept,
                )
            )
        return found

    def _values(self, objective: Objective) -> Any:
        """Good trials' ids, numbers and values of an objective, as a subquery."""
        return (
            sa.select(TRIAL.c.id, TRIAL.c.number, VALUE.c.value)
            .join(VALUE, VALUE.c.trial_id == TRIAL.c.id)
            .where(*self._good(), VALUE.c.kind == "objectives", VALUE.c.name == objective.name)
            .subquery()
        )

    def history(self, objective: Objective, *, points: int = _POINTS) -> dict[str, list[Any]]:
        """Values by trial and the best so far, thinned evenly.

        Returns:
            ``number``, ``value`` and ``best``, at most about ``points`` long; every trial that was
            the best when it ended is among them, up to so many more.
        """
        values = self._values(objective)
        extreme = sa.func.min if objective.direction == "min" else sa.func.max
        order = values.c.number
        ranked = sa.select(
            values.c.number,
            values.c.value,
            extreme(values.c.value).over(order_by=order).label("best"),
            sa.func.row_number().over(order_by=order).label("place"),
        ).subquery()
        with self._store.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(values)).scalar_one()
            step = max(-(-count // points), 1)
            rows = connection.execute(
                sa.select(ranked.c.number, ranked.c.value, ranked.c.best)
                .where((ranked.c.place % step == 1 % step) | (ranked.c.value == ranked.c.best))
                .order_by(ranked.c.number)
                .limit(2 * points)
            ).all()
        return {
            "number": [row[0] for row in rows],
            "value": [row[1] for row in rows],
            "best": [row[2] for row in rows],
        }

    def sample(self, *, points: int = _POINTS) -> list[dict[str, Any]]:
        """Good trials with configuration and objectives.

        The best by the first objective, up to a quarter of ``points``, and others spread evenly
        over the study.
        """
        first = self._study.objectives[0]
        values = self._values(first)
        best = values.c.value.asc() if first.direction == "min" else values.c.value.desc()
        place = sa.func.row_number().over(order_by=values.c.number).label("place")
        placed = sa.select(values.c.id, place).subquery()
        with self._store.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(values)).scalar_one()
            step = max(-(-count // max(3 * points // 4, 1)), 1)
            ids = set(
                connection.execute(
                    sa.select(values.c.id).order_by(best).limit(max(points // 4, 1))
                ).scalars()
            )
            ids |= set(
                connection.execute(
                    sa.select(placed.c.id).where(placed.c.place % step == 1 % step)
                ).scalars()
            )
            return self._rows(connection, sorted(ids))

    def _rows(self, connection: sa.Connection, ids: list[int]) -> list[dict[str, Any]]:
        rows: dict[int, dict[str, Any]] = {}
        for start in range(0, len(ids), _MOST_ROWS):
            part = ids[start : start + _MOST_ROWS]
            found = connection.execute(
                sa.select(TRIAL).where(TRIAL.c.id.in_(part)).order_by(TRIAL.c.number)
            )
            for row in found:
                rows[row.id] = {
                    "number": row.number,
                    "state": row.state,
                    "config": json.loads(row.config) if row.config else {},
                    "fidelity": row.fidelity,
                    "origin": row.origin,
                    "attempt": row.attempt,
                    "started_s": row.started,
                    "finished_s": row.finished,
                    "error": row.error,
                    "values": {},
                    "constraints": {},
                }
            for trial, kind, name, value in connection.execute(
                sa.select(VALUE).where(
                    VALUE.c.trial_id.in_(part), VALUE.c.kind.in_(("objectives", "constraints"))
                )
            ):
                rows[trial]["values" if kind == "objectives" else kind][name] = value
        return sorted(rows.values(), key=lambda row: row["number"])

    def trials(
        self, *, offset: int = 0, limit: int = 100, state: str | None = None
    ) -> list[dict[str, Any]]:
        """A page of trials, the last first."""
        wanted = [self._mine, TRIAL.c.config.is_not(None)]
        if state is not None:
            wanted.append(TRIAL.c.state == state)
        with self._store.reading() as connection:
            ids = connection.execute(
                sa.select(TRIAL.c.id)
                .where(*wanted)
                .order_by(TRIAL.c.number.desc())
                .offset(offset)
                .limit(min(limit, _MOST_ROWS))
            ).scalars()
            return self._rows(connection, list(ids))[::-1]

    def trial(self, number: int) -> dict[str, Any] | None:
        """One trial with its learning curve, at most 2,000 points of it; None if there is none."""
        with self._store.reading() as connection:
            key = connection.execute(
                sa.select(TRIAL.c.id).where(self._mine, TRIAL.c.number == number)
            ).scalar()
            if key is None:
                return None
            [row] = self._rows(connection, [key])
            points = connection.execute(
                sa.select(TRACE.c.step, TRACE.c.value)
                .where(TRACE.c.trial_id == key)
                .order_by(TRACE.c.step)
            ).all()
        step = max(-(-len(points) // _POINTS), 1)
        row["trace"] = [[p.step, p.value] for p in points[::step]]
        return row

    def timeline(self, *, last: int = 500) -> list[dict[str, Any]]:
        """When the last trials that began ran, by number."""
        with self._store.reading() as connection:
            rows = connection.execute(
                sa.select(
                    TRIAL.c.number,
                    TRIAL.c.state,
                    TRIAL.c.started,
                    TRIAL.c.finished,
                    TRIAL.c.lease_owner,
                )
                .where(self._mine, TRIAL.c.started.is_not(None))
                .order_by(TRIAL.c.number.desc())
                .limit(last)
            ).all()
        return [
            {"number": r[0], "state": r[1], "started_s": r[2], "finished_s": r[3], "owner": r[4]}
            for r in reversed(rows)
        ]

    def as_trials(self, *, points: int = _POINTS) -> list[Trial]:
        """The sample as trials, for analyses."""
        return [
            Trial(
                number=row["number"],
                config={n: self._study.space[n].check(v) for n, v in row["config"].items()},
                state="ok",
                feedback=Feedback(objectives=row["values"]),
            )
            for row in self.sample(points=points)
        ]
