"""The tables of a store, and what a database must offer to hold them.

SQLite (:mod:`sharpen.core.sqlite`) and PostgreSQL (:mod:`sharpen.core.postgres`) run the same
statements; they differ in how transactions wait for each other, whose clock leases go by, and what
their errors mean.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

__all__ = ["FORMAT", "MIGRATIONS", "STUDY", "TABLES", "TRACE", "TRIAL", "VALUE", "Database"]

T = TypeVar("T")
FORMAT = 2
MIGRATIONS = {  # by the format a store has
    1: (
        "ALTER TABLE trial ADD COLUMN fidelity FLOAT",
        "ALTER TABLE trial ADD COLUMN context TEXT",
    ),
}

TABLES = sa.MetaData()
STUDY = sa.Table(
    "study",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("space", sa.Text, nullable=False),
    sa.Column("objectives", sa.Text, nullable=False),
    sa.Column("constraints", sa.Text, nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)
TRIAL = sa.Table(
    "trial",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.ForeignKey("study.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("config", sa.Text),
    sa.Column("config_hash", sa.Text),
    sa.Column("fidelity", sa.Float),  # from format 2 on
    sa.Column("context", sa.Text),  # from format 2 on
    sa.Column("origin", sa.Text, nullable=False, server_default=""),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("lease_token", sa.Text),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_expires", sa.Float),
    sa.Column("revision", sa.Integer),  # position in the order of endings
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("extra", sa.Text),  # info, text and gradients as JSON
    sa.UniqueConstraint("study_id", "number"),
    sa.Index("trial_by_state", "study_id", "state", "number"),
    sa.Index("trial_by_config", "study_id", "config_hash"),
    sa.Index("trial_by_revision", "study_id", "revision"),
)
VALUE = sa.Table(
    "value",
    TABLES,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Float),  # SQLite keeps NaN as NULL
)
TRACE = sa.Table(
    "trace",
    TABLES,
    sa.Column("trial_id", sa.ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("value", sa.Float),
    sa.Column("elapsed_s", sa.Float, nullable=False),
)


class Database(Protocol):
    """Where the tables are."""

    url: str
    """Its URL, without a password."""

    path: Path | None
    """Its file, if it is one."""

    clock: sa.ColumnElement[float]
    """Seconds on a clock that all who share the database have in common and nobody sets."""

    def write(self) -> AbstractContextManager[sa.Connection]:
        """One transaction; it is kept once the block ends."""

    def read(self) -> AbstractContextManager[sa.Connection]:
        """One consistent view; writers are not held up."""

    def patiently(self, do: Callable[[bool], T]) -> T:
        """Call ``do(again)`` and, while the database is away, once more with ``again`` true."""

    def order(self, connection: sa.Connection, study_id: int) -> None:
        """Let transactions of one study, from here on, follow one after the other."""

    def insert(self, table: sa.Table) -> Any:
        """An insert that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""

    def is_lost(self, owner: str, expires: float, now: float) -> bool:
        """Whether a lease is void at ``now`` of :attr:`clock`."""

    def is_whole(self) -> bool:
        """The database's own check of its files."""

    def close(self) -> None:
        """Close the connections of this process."""
