"""A store in PostgreSQL, for studies that several machines share.

The tables lie in a schema of their own, ``sharpen``. Transactions of one study follow one another
by an advisory lock, so numbers and budgets are exact; those of different studies do not wait.
Leases go by the server's clock. While the server is away, whatever is under way waits for it.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from sharpen.core.database import FORMAT, MIGRATIONS, TABLES
from sharpen.core.errors import (
    BusyError,
    ConfigError,
    DependencyNotInstalled,
    FileFormatError,
    MissingFileError,
    StorageError,
)
from sharpen.core.leases import is_lost

__all__ = ["PostgresDatabase"]

T = TypeVar("T")
# The driver does not wrap the error of a server that goes away while a connection is made.
_Failure: TypeAlias = sa.exc.DBAPIError | ConnectionError
_log = logging.getLogger(__name__)
# Connections that break are told by _log; the pool would add a traceback for each.
logging.getLogger("sqlalchemy.pool.impl.QueuePool.sharpen").setLevel(logging.CRITICAL)
_SCHEMA = "sharpen"
_LOCKS = 0x53687270  # our class of advisory locks: "Shrp"
_PATIENCE_S = 120.0  # how long a server may be away
_FIRST_S = 5.0  # a server that was never there is an error sooner
_BUSY_S = 60.0
_CANNOT_GO_ON = ("08", "57P")  # the connection failed; the server is shutting down or starting up
_ONE_OF_TWO = ("40001", "40P01")  # not serializable; deadlock: the other one goes on


class PostgresDatabase:
    """Tables in a PostgreSQL database; see :class:`~sharpen.core.database.Database`.

    Args:
        url: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``; ``?host=/var/run/postgresql`` for a
            socket in that folder. What is left out comes from PGUSER, PGPASSWORD, PGHOST, PGPORT
            and PGDATABASE.
        create: whether to make tables that do not exist.
    """

    path: Path | None = None
    clock: sa.ColumnElement[float] = sa.cast(
        sa.extract("epoch", sa.func.clock_timestamp()), sa.Double()
    )

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._address = _address(url)
        self.url = self._address.set(drivername="postgresql").render_as_string(hide_password=True)
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()
        self._threads = threading.RLock()
        self._patience_s = _FIRST_S
        self.patiently(lambda again: self._prepare(create))
        self._patience_s = _PATIENCE_S

    def _connect(self) -> sa.Engine:
        """This process's engine; a forked child makes its own and leaves the parent's alone."""
        with self._threads:
            if self._engine is None or self._pid != os.getpid():
                if self._engine is not None:
                    self._engine.dispose(close=False)
                self._pid = os.getpid()
                address, arguments = self._address, {}
                folder = address.query.get("host")
                if isinstance(folder, str):
                    port = address.port or 5432
                    arguments["unix_sock"] = f"{folder}/.s.PGSQL.{port}"
                    address = address.set(query={}, host=None, port=None)
                self._engine = sa.create_engine(
                    address, connect_args=arguments, pool_pre_ping=True, pool_logging_name="sharpen"
                )

                weakref.finalize(self, _dispose, self._engine, self._pid)

                @sa.event.listens_for(self._engine, "connect")
                def prepare(connection: Any, record: Any) -> None:
                    cursor = connection.cursor()
                    cursor.execute(f"SET search_path TO {_SCHEMA}")
                    cursor.execute(f"SET lock_timeout TO '{_BUSY_S:g}s'")
                    connection.commit()

            return self._engine

    def _prepare(self, create: bool) -> None:
        """Make the tables, or check that they are ours."""
        column = sa.Column("version", sa.Integer)
        version = sa.Table("format", sa.MetaData(), column, schema=_SCHEMA)
        with self.write() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, 0)))
            if "format" not in sa.inspect(connection).get_table_names(_SCHEMA):
                if not create:
                    raise MissingFileError(f"{self.url} holds no studies.")
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
                version.create(connection)
                connection.execute(version.insert(), {"version": FORMAT})
                TABLES.create_all(connection)
                return
            found = connection.execute(sa.select(version.c.version)).scalar_one()
            if found > FORMAT:
                raise FileFormatError(
                    f"{self.url} was written by a newer version (format {found}; this one reads "
                    f"{FORMAT}). Update sharpen."
                )
            for old in range(found, FORMAT):
                for statement in MIGRATIONS[old]:
                    connection.exec_driver_sql(statement)
            connection.execute(version.update(), {"version": FORMAT})

    def close(self) -> None:
        """See :class:`~sharpen.core.database.Database`."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
            self._engine = None

    # -- what differs between databases ---------------------------------------------------------

    def order(self, connection: sa.Connection, study_id: int) -> None:
        """See :class:`~sharpen.core.database.Database`."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, study_id)))

    def insert(self, table: sa.Table) -> Any:
        """See :class:`~sharpen.core.database.Database`."""
        return insert(table)

    def is_lost(self, owner: str, expires: float, now: float) -> bool:
        """See :class:`~sharpen.core.database.Database`."""
        return is_lost(owner, expires, now, one_machine=False)

    def is_whole(self) -> bool:
        """See :class:`~sharpen.core.database.Database`: every row can be read."""
        with self.read() as connection:
            for table in TABLES.sorted_tables:
                connection.execute(sa.select(sa.func.count(table.c[0]))).scalar_one()
        return True

    # -- transactions ---------------------------------------------------------------------------

    def patiently(self, do: Callable[[bool], T]) -> T:
        """See :class:`~sharpen.core.database.Database`; also after a deadlock."""
        began, again = time.monotonic(), False
        while True:
            try:
                return do(again)
            except (sa.exc.DBAPIError, ConnectionError) as error:
                code = _code(error)
                passes = not code or code.startswith(_CANNOT_GO_ON) or code in _ONE_OF_TWO
                if not passes:
                    raise self._translate(error) from error
                if time.monotonic() - began > self._patience_s:
                    raise self._translate(error) from error
                if not again:
                    _log.warning("the store %s does not answer; waiting for it", self.url)
            again = True
            time.sleep(random.uniform(0.05, 0.5))

    def _translate(self, error: _Failure) -> Exception:
        code, text = _code(error), _text(error)
        if code.startswith("28"):
            return ConfigError(f"{self.url} does not let this user in: {text}")
        if code == "3D000":
            return ConfigError(f"{self.url}: {text}. Make it first: createdb NAME")
        if code == "42501":
            return ConfigError(
                f"{self.url}: {text}. The user needs the right to create a schema there, or the "
                f"rights on the schema '{_SCHEMA}'."
            )
        if code == "55P03":
            return BusyError(f"{self.url} was locked by another program for {_BUSY_S:g} seconds.")
        if code.startswith("53"):
            return StorageError(f"{self.url} cannot store more: {text}. Free space on the server.")
        if not code or code.startswith(_CANNOT_GO_ON):
            return StorageError(
                f"cannot reach {self.url} ({text}). Is the server running? Run the same command "
                "again once it is; it resumes."
            )
        return error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """See :class:`~sharpen.core.database.Database`."""
        with self._connect().begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """See :class:`~sharpen.core.database.Database`."""
        with self._connect().connect() as connection:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection


def _dispose(engine: sa.Engine, pid: int) -> None:
    """Free the server's connections; those of a parent are not this process's to close."""
    if pid == os.getpid():
        engine.dispose()


def _address(url: str) -> sa.URL:
    try:
        import pg8000  # noqa: F401 - SQLAlchemy loads it by name
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("a store in PostgreSQL", "postgres") from None
    try:
        address = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(
            f"{url!r} is no URL. Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        ) from None
    get = os.environ.get
    port = get("PGPORT")
    return address.set(
        drivername="postgresql+pg8000",
        username=address.username or get("PGUSER") or get("USER") or "postgres",
        password=address.password or get("PGPASSWORD"),
        host=address.host or get("PGHOST") or "localhost",
        port=address.port or (int(port) if port and port.isdigit() else None),
        database=address.database or get("PGDATABASE") or address.username or "postgres",
    )


def _code(error: _Failure) -> str:
    """SQLSTATE of an error of the server; empty when the server did not answer."""
    if isinstance(error, ConnectionError):
        return ""
    given = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return str(given.get("C", "")) if isinstance(given, dict) else ""


def _text(error: _Failure) -> str:
    if isinstance(error, ConnectionError):
        return error.strerror or str(error)
    given = error.orig.args[0] if error.orig is not None and error.orig.args else error.orig
    return str(given.get("M", given)) if isinstance(given, dict) else str(given)
