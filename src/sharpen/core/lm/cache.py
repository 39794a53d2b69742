"""Replies that were paid for once, in a SQLite file that threads and processes share.

A reply is known by the sha256 of the whole request with its parameters, the model's name and the
engine's scope. What is drawn at a temperature above 0 is kept only under a ``repeat`` number, so
that asking twice draws twice.

Whoever finds no reply takes a lease on the key and asks the model; others who want the same wait
for it, and ask themselves only if the first gives up, dies, or holds the lease for longer than
``lease_s``. So a reply is paid for once however many processes want it, and a run that is killed
and run again pays for what was under way alone.

What was used longest ago goes once the replies are larger than ``max_bytes``.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from sharpen.core.errors import BusyError, ConfigError, FileFormatError, StorageError
from sharpen.core.files import FileLock, cache_home
from sharpen.core.leases import this_process
from sharpen.core.lm.messages import ChatRequest, ChatResponse, Engine, ThreadedEngine
from sharpen.core.sqlite import Schema, SqliteDatabase

__all__ = ["CacheStats", "CachedEngine", "ReplyCache", "default_cache"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_TABLES = sa.MetaData()
_REPLY = sa.Table(
    "reply",
    _TABLES,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("response", sa.Text, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("used", sa.Float, nullable=False),
    sa.Index("reply_by_use", "used"),
)
_LEASE = sa.Table(
    "lease",
    _TABLES,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)
_TOTAL = sa.Table(
    "total",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("bytes", sa.Integer, nullable=False),
)
_APPLICATION_ID = 0x53687263  # "Shrc"
_SCHEMA = Schema(
    tables=_TABLES,
    format=1,
    application_id=_APPLICATION_ID,
    what="cache",
    option="file for the cache",
)
_SQLITE = b"SQLite format 3\0"
_HEAD = 72  # bytes; the last four are the application's id
_OPEN_S = 60.0
_TRIES = 4
_POLL_S = (0.005, 0.25)
_TOUCH_S = 60.0
_KEPT = 0.9  # of max_bytes, after something had to go


def default_cache() -> Path:
    """The file that all programs of a user share."""
    return cache_home() / "lm" / "replies.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What a cache holds."""

    file: Path
    replies: int
    bytes: int
    """Of the replies; the file is larger."""

    max_bytes: int
    models: dict[str, int]
    """Replies by model."""

    oldest: float | None
    """When the oldest was made, in seconds since 1970."""

    newest: float | None


class ReplyCache:
    """The file.

    Args:
        path: made where there is none. One that is damaged or of a newer version is set aside under
            another name, with a warning; one that is no cache is refused.
        ttl_s: replies older than this are asked for again.
        max_bytes: of all replies.
        lease_s: how long others wait for a living process that asks for a reply.

    Raises:
        ConfigError: a value out of range.
        FileFormatError: the file is no cache of replies.
        StorageError: it cannot be written.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        ttl_s: float | None = None,
        max_bytes: int = 1 << 30,
        lease_s: float = 3600.0,
    ) -> None:
        for name, value in (("ttl_s", ttl_s), ("max_bytes", max_bytes), ("lease_s", lease_s)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value} must be positive (ReplyCache).")
        self.path = default_cache() if path is None else Path(path)
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._lease_s = lease_s
        self._inode = 0
        self._reopening = threading.Lock()
        self._database = self._open()

    def take(self, key: str) -> ChatResponse | Literal["ask", "wait"]:
        """The reply of a key; else whether to ask for it, which then takes the lease, or to wait.

        Whoever is told to ask must call :meth:`put` or :meth:`give_up`.
        """
        return self._safely(lambda: self._take(key))

    def put(self, key: str, model: str, response: ChatResponse) -> None:
        """Keep a reply, and end the lease."""
        text = json.dumps(response.to_json(), ensure_ascii=True)
        self._safely(lambda: self._put(key, model, text))

    def give_up(self, key: str) -> None:
        """End the lease without a reply."""
        self._safely(lambda: self._end_lease(key))

    def stats(self) -> CacheStats:
        """What it holds."""
        return self._safely(self._stats)

    def clear(self) -> int:
        """Forget all replies; returns how many there were."""
        return self._safely(self._clear)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- transactions ----------------------------------------------------------------------------

    def _take(self, key: str) -> ChatResponse | Literal["ask", "wait"]:
        now = time.time()
        with self._database.read() as connection:
            row = self._row(connection, key, now)
        if row is not None and now - row.used < _TOUCH_S and (found := _response(row)):
            return found
        with self._database.write() as connection:
            row = self._row(connection, key, now)
            if row is not None and (found := _response(row)):
                used = sa.update(_REPLY).where(_REPLY.c.key == key).values(used=now)
                connection.execute(used)
                return found
            _delete(connection, [key])
            clock = time.monotonic()  # what SqliteDatabase.is_lost compares with
            held = connection.execute(sa.select(_LEASE).where(_LEASE.c.key == key)).first()
            if held is not None and not self._database.is_lost(held.owner, held.expires, clock):
                return "wait"
            mine = {"owner": this_process(), "expires": clock + self._lease_s}
            take = self._database.insert(_LEASE).values(key=key, **mine)
            connection.execute(take.on_conflict_do_update(index_elements=["key"], set_=mine))
        return "ask"

    def _row(self, connection: sa.Connection, key: str, now: float) -> Any:
        wanted = sa.select(_REPLY).where(_REPLY.c.key == key)
        if self._ttl_s is not None:
            wanted = wanted.where(_REPLY.c.created > now - self._ttl_s)
        return connection.execute(wanted).first()

    def _put(self, key: str, model: str, text: str) -> None:
        now, size = time.time(), len(text)
        with self._database.write() as connection:
            connection.execute(sa.delete(_LEASE).where(_LEASE.c.key == key))
            if size > self._max_bytes:
                return
            _delete(connection, [key])
            row = {"model": model, "response": text, "bytes": size, "created": now, "used": now}
            connection.execute(sa.insert(_REPLY).values(key=key, **row))
            total = _grow(connection, size)
            if total > self._max_bytes:
                _delete(connection, _longest_unused(connection, total - _KEPT * self._max_bytes))

    def _end_lease(self, key: str) -> None:
        with self._database.write() as connection:
            mine = sa.and_(_LEASE.c.key == key, _LEASE.c.owner == this_process())
            connection.execute(sa.delete(_LEASE).where(mine))

    def _stats(self) -> CacheStats:
        with self._database.read() as connection:
            whole = sa.select(
                sa.func.count(),
                sa.func.coalesce(sa.func.sum(_REPLY.c.bytes), 0),
                sa.func.min(_REPLY.c.created),
                sa.func.max(_REPLY.c.created),
            )
            replies, size, oldest, newest = connection.execute(whole.select_from(_REPLY)).one()
            by_model = sa.select(_REPLY.c.model, sa.func.count()).group_by(_REPLY.c.model)
            models = {name: int(count) for name, count in connection.execute(by_model)}
        return CacheStats(
            file=self.path,
            replies=int(replies),
            bytes=int(size),
            max_bytes=self._max_bytes,
            models=models,
            oldest=oldest,
            newest=newest,
        )

    def _clear(self) -> int:
        with self._database.write() as connection:
            count = connection.execute(sa.delete(_REPLY)).rowcount
            connection.execute(sa.delete(_TOTAL))
        return int(count)

    # -- damaged files ---------------------------------------------------------------------------

    def _open(self, damage: FileFormatError | None = None) -> SqliteDatabase:
        """The file; one that cannot be read is set aside, by one process while others wait."""
        lock = FileLock(self.path.with_name(self.path.name + ".open"), f"the cache {self.path}")
        lock.acquire(_OPEN_S)
        try:
            if damage is not None and self.path.exists() and self.path.stat().st_ino == self._inode:
                self._set_aside(damage)
            try:
                database = SqliteDatabase(self.path, schema=_SCHEMA)
            except FileFormatError as error:
                self._set_aside(error)
                database = SqliteDatabase(self.path, schema=_SCHEMA)
            self._inode = self.path.stat().st_ino
            return database
        finally:
            lock.release()

    def _safely(self, do: Callable[[], T]) -> T:
        """``do``; where the file proves damaged, again with the cache begun anew.

        Others may find the new file before it has its tables, and then wait for them.
        """
        for _ in range(_TRIES):
            used = self._database
            try:
                return do()
            except (FileFormatError, sa.exc.OperationalError) as error:
                with self._reopening:
                    if self._database is used:  # no other thread was here first
                        damage = error if isinstance(error, FileFormatError) else None
                        self._database = self._open(damage)
                        used.close()
        return do()

    def _set_aside(self, error: FileFormatError) -> None:
        """Give the file another name.

        Raises:
            FileFormatError: it was never a cache.
        """
        with self.path.open("rb") as file:
            head = file.read(_HEAD)
        is_sqlite, is_ours = head.startswith(_SQLITE), head[-4:] == _APPLICATION_ID.to_bytes(4)
        if not is_ours and (is_sqlite or self.path.suffix != ".sqlite"):
            raise FileFormatError(
                f"{self.path} is no cache of replies. Choose another file for the cache."
            ) from error
        number = next(n for n in itertools.count(1) if not self._aside(n).exists())
        aside = self._aside(number)
        for end in ("-wal", "-shm", ""):
            old = self.path.with_name(self.path.name + end)
            if old.exists():
                old.rename(aside.with_name(aside.name + end))
        _log.warning("%s It was set aside as %s, and the cache begins anew.", error, aside)

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.aside-{number}")


def _response(row: Any) -> ChatResponse | None:
    """A kept reply; None where it cannot be read, so that it is asked for again."""
    try:
        return ChatResponse.from_json(json.loads(row.response))
    except (ValueError, TypeError, KeyError):
        _log.warning("the cached reply %s cannot be read; it is asked for again.", row.key)
        return None


def _delete(connection: sa.Connection, keys: Sequence[str]) -> None:
    gone = 0
    for key in keys:
        where = _REPLY.c.key == key
        size = connection.execute(sa.select(_REPLY.c.bytes).where(where)).scalar()
        if size is not None:
            connection.execute(sa.delete(_REPLY).where(where))
            gone += size
    if gone:
        _grow(connection, -gone)


def _grow(connection: sa.Connection, size: int) -> int:
    """Count bytes of replies; returns how many there are."""
    row = connection.execute(sa.select(_TOTAL.c.bytes)).first()
    if row is None:
        connection.execute(sa.insert(_TOTAL).values(id=1, bytes=size))
        return size
    connection.execute(sa.update(_TOTAL).values(bytes=row.bytes + size))
    return int(row.bytes) + size


def _longest_unused(connection: sa.Connection, size: float) -> list[str]:
    """Keys of the replies used longest ago, of at least so many bytes together."""
    found: list[str] = []
    rows = sa.select(_REPLY.c.key, _REPLY.c.bytes).order_by(_REPLY.c.used, _REPLY.c.created)
    for key, one in connection.execute(rows):
        if size <= 0:
            break
        found.append(key)
        size -= one
    return found


class CachedEngine(ThreadedEngine):
    """An engine that asks another only for what a cache does not have.

    Args:
        inner: the engine.
        store: the cache.

    Attributes:
        hits: requests that the cache answered.
    """

    def __init__(self, inner: Engine, store: ReplyCache) -> None:
        self.model = inner.model
        self.capabilities = inner.capabilities
        self.scope = str(getattr(inner, "scope", ""))
        self.hits = 0
        self._inner = inner
        self._store = store
        self._lock = threading.Lock()

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply, kept or new; raises what the engine raises."""
        if request.temperature > 0 and request.repeat is None:
            return self._inner.complete(request)
        key = request.digest(self.scope, self.model)
        pause, longest = _POLL_S
        while (found := self._store.take(key)) == "wait":
            time.sleep(pause)
            pause = min(2 * pause, longest)
        if isinstance(found, ChatResponse):
            with self._lock:
                self.hits += 1
            return found
        try:
            response = self._inner.complete(request)
        except BaseException:
            self._store.give_up(key)
            raise
        try:
            self._store.put(key, self.model, _kept(request, response))
        except (StorageError, BusyError) as error:
            _log.warning("a reply could not be kept: %s", error)  # it was paid for all the same
        return response


def _kept(request: ChatRequest, response: ChatResponse) -> ChatResponse:
    """What is kept of a response: the raw answer only where something in it was asked for."""
    wanted = request.logprobs is not None or bool(request.extra)
    return response if wanted else replace(response, raw=None)
