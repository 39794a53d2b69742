"""A SQLite file that processes share: its transactions, and errors people can act on.

Every change is one immediate transaction; writers queue on a lock file beside the database, which
shares the disk more evenly than SQLite's own busy waiting. The journal is a write-ahead log: a
process that dies loses nothing it has committed. Each thread of each process has a connection of
its own; a forked child never touches its parent's.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import StaticPool

from sharpen.core.database import FORMAT, MIGRATIONS, TABLES
from sharpen.core.errors import (
    BusyError,
    ConfigError,
    FileFormatError,
    MissingFileError,
    StorageError,
    storage_errors,
)
from sharpen.core.leases import is_lost

__all__ = ["Schema", "SqliteDatabase"]

T = TypeVar("T")
_BUSY_S = 90.0
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "glusterfs", "ceph", "beegfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a file holds."""

    tables: sa.MetaData

    format: int
    """Its version."""

    application_id: int
    """Tells such files from others: four letters."""

    migrations: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Statements that bring a file of an earlier version to the next."""

    what: str
    """Such a file, in words."""

    option: str
    """What a user gives another file by."""


STORE = Schema(
    tables=TABLES,
    format=FORMAT,
    application_id=0x53687270,  # "Shrp"
    migrations=MIGRATIONS,
    what="store",
    option="--store",
)


def _path_of(url: str | Path) -> Path | None:
    """The file of a store's URL; None is in memory."""
    text = str(url)
    if "://" not in text:
        return Path(text)
    rest = text.removeprefix("sqlite://")
    if rest in ("", "/", "/:memory:"):
        return None
    if not rest.startswith("/"):
        raise ConfigError(f"{text!r} lacks a slash: write sqlite:///{rest} for a relative path.")
    return Path(rest[1:])


def _file_system(path: Path) -> str:
    """Type of the file system that holds ``path``, by the longest mount point above it."""
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name = line.split()[:3]
        inside = path == Path(mount) or Path(mount) in path.parents
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


class SqliteDatabase:
    """One SQLite file, or one in memory.

    Args:
        url: see :func:`sharpen.core.store.open_store`.
        create: whether to make a file that does not exist.
        schema: what it holds.
    """

    clock: sa.ColumnElement[float] = sa.bindparam(
        "clock", callable_=time.monotonic, type_=sa.Float()
    )

    def __init__(self, url: str | Path, *, create: bool = True, schema: Schema = STORE) -> None:
        self.schema = schema
        self.path = _path_of(url)
        self.url = "sqlite://" if self.path is None else f"sqlite:///{self.path}"
        self._threads = threading.RLock()
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()
        self._lock_handle: int | None = None
        if self.path is not None:
            self._check_file(self.path, create)
        self._prepare()

    def _check_file(self, path: Path, create: bool) -> None:
        if not path.exists():
            if not create:
                raise MissingFileError(f"no such {self.schema.what}: {path}")
            with storage_errors(path.parent, doing="create"):
                path.parent.mkdir(parents=True, exist_ok=True)
        elif path.is_dir():
            raise ConfigError(f"{path} is a folder; give a file, for example {path / 'study.db'}.")
        kind = _file_system(path.absolute())
        if kind in _NETWORK:
            raise ConfigError(
                f"{path} lies on a network file system ({kind}), where SQLite loses data. "
                "Choose a local folder."
            )
        if path.exists() and not os.access(path, os.W_OK):
            raise StorageError(
                f"no permission to write {path}. Choose another {self.schema.option}."
            )

    def _connect(self) -> sa.Engine:
        """This process's engine; a forked child makes its own and leaves the parent's alone."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None and self.path is None:
                raise ConfigError(
                    f"a {self.schema.what} in memory belongs to the process that made it."
                )
            self._pid = os.getpid()
            self._lock_handle = None
            options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
            arguments: dict[str, Any] = {"timeout": _BUSY_S}
            if self.path is None:
                options["poolclass"] = StaticPool
                arguments["check_same_thread"] = False
            url = sa.URL.create("sqlite", database=str(self.path) if self.path else None)
            self._engine = sa.create_engine(url, connect_args=arguments, **options)

            @sa.event.listens_for(self._engine, "connect")
            def prepare(connection: Any, record: Any) -> None:
                for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
                    connection.execute(f"PRAGMA {pragma}")

        return self._engine

    def _prepare(self) -> None:
        """Make the tables, or check that they are ours."""
        schema = self.schema
        with self._errors(), self._turn(), self._connect().connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            program = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
            tables = sa.inspect(connection).get_table_names()
            if tables and program != schema.application_id:
                raise FileFormatError(f"{self.path} is a SQLite file of another program.")
            if version > schema.format:
                raise FileFormatError(
                    f"{self.path} was written by a newer version (format {version}; this one "
                    f"reads {schema.format}). Update sharpen."
                )
            if self.path is not None:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            if not tables:
                with _transaction(connection):
                    schema.tables.create_all(connection)
                    connection.exec_driver_sql(f"PRAGMA application_id={schema.application_id}")
                    connection.exec_driver_sql(f"PRAGMA user_version={schema.format}")
            elif version < schema.format:
                with _transaction(connection):
                    for statement in schema.migrations[version]:
                        connection.exec_driver_sql(statement)
                    connection.exec_driver_sql(f"PRAGMA user_version={schema.format}")

    def close(self) -> None:
        """Close the connections of this process."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
            self._engine = None
        if self._lock_handle is not None:
            os.close(self._lock_handle)
            self._lock_handle = None

    # -- what differs between databases ---------------------------------------------------------

    def patiently(self, do: Callable[[bool], T]) -> T:
        """See :class:`~sharpen.core.database.Database`; a file is never away."""
        return do(False)

    def order(self, connection: sa.Connection, study_id: int) -> None:
        """See :class:`~sharpen.core.database.Database`; all writers wait for each other anyway."""

    def insert(self, table: sa.Table) -> Any:
        """See :class:`~sharpen.core.database.Database`."""
        return insert(table)

    def is_lost(self, owner: str, expires: float, now: float) -> bool:
        """See :class:`~sharpen.core.database.Database`; all owners are on this machine."""
        return is_lost(owner, expires, now, one_machine=True)

    def is_whole(self) -> bool:
        """See :class:`~sharpen.core.database.Database`."""
        with self.read() as connection:
            return bool(connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok")

    # -- transactions ---------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for this process's turn to write; other processes wait on the lock file."""
        with self._threads:
            if self.path is None:
                yield
                return
            self._connect()
            if self._lock_handle is None:
                lock = self.path.with_name(self.path.name + ".lock")
                with storage_errors(lock, doing="open"):
                    self._lock_handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            handle = self._lock_handle
            deadline = time.monotonic() + _BUSY_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BusyError(
                            f"the {self.schema.what} {self.path} was locked by another process for "
                            f"{_BUSY_S:g} seconds. Is one of its processes stopped?"
                        ) from None
                    time.sleep(random.uniform(0.0005, 0.003))
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._translate(error) from error

    def _translate(self, error: sa.exc.DBAPIError) -> Exception:
        name = getattr(error.orig, "sqlite_errorname", "")
        what, option = self.schema.what, self.schema.option
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return FileFormatError(
                f"the {what} {self.path} is damaged ({error.orig}). Restore it from a copy, or "
                f"choose another {option}; 'sqlite3 FILE .recover' saves what is readable."
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return BusyError(
                f"the {what} {self.path} was locked by another program for {_BUSY_S:g} seconds."
            )
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            return StorageError(
                f"cannot write the {what} {self.path}: {error.orig}. Is the disk full? Free space "
                "and run the same command again; it resumes."
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return StorageError(
                f"no permission to write the {what} {self.path} ({error.orig}). "
                f"Choose another {option}."
            )
        return error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One immediate transaction; it is in the file when the block ends."""
        with (
            self._errors(),
            self._turn(),
            self._connect().connect() as connection,
            _transaction(connection),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view; writers are not held up."""
        if self.path is None:
            with self._threads, self._connect().connect() as connection:
                yield connection
            return
        with (
            self._errors(),
            self._connect().connect() as connection,
            _transaction(connection, "DEFERRED"),
        ):
            yield connection


@contextmanager
def _transaction(
    connection: sa.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE"
) -> Iterator[None]:
    connection.exec_driver_sql(f"BEGIN {kind}")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with suppress(sa.exc.DBAPIError):  # a full disk has rolled back already
            connection.exec_driver_sql("ROLLBACK")
        raise
