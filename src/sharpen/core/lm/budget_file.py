"""The count of a budget in a file that processes share: one row, changed in transactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from sharpen.core.lm.budget import Spent
from sharpen.core.sqlite import Schema, SqliteDatabase

__all__ = ["BudgetFile"]

_TABLES = sa.MetaData()
_SPENT = sa.Table(
    "spent",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("cost", sa.Float, nullable=False),
)
_SCHEMA = Schema(
    tables=_TABLES,
    format=1,
    application_id=0x53687262,  # "Shrb"
    what="budget",
    option="file of the budget",
)


class BudgetFile:
    """What has been spent, by all who open the file.

    Args:
        path: made if it is not there.

    Raises:
        FileFormatError: it is another program's, damaged, or of a newer version. A budget is never
            begun anew unasked.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._database = SqliteDatabase(path, schema=_SCHEMA)

    def spent(self) -> Spent:
        """So far."""
        with self._database.read() as connection:
            return _row(connection)

    def change(self, change: Callable[[Spent], Spent]) -> None:
        """Replace the count by a function of it; what the function raises leaves it as it was."""
        with self._database.write() as connection:
            new = asdict(change(_row(connection)))
            statement = self._database.insert(_SPENT).values(id=1, **new)
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=new))


def _row(connection: sa.Connection) -> Spent:
    row = connection.execute(sa.select(_SPENT.c.calls, _SPENT.c.tokens, _SPENT.c.cost)).first()
    return Spent() if row is None else Spent(calls=row.calls, tokens=row.tokens, cost=row.cost)
