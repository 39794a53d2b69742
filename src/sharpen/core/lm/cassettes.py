"""Recordings of what a model said, to play without it: one JSON object a line, to read and review.

::

    {"key": ..., "request": {...}, "response": {...}}

A request is known by the sha256 of all of it, the model's name, and a number: ``repeat`` where the
request has one, else how often the same was drawn before at a temperature above 0. Keys, addresses
and headers are no part of a request, so none is recorded.

A line is written at once, under a lock, so that processes may record into one file. One that was
killed while it wrote leaves a line without an end, which is not read and is cut off before the next
is written.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, storage_errors
from sharpen.core.lm.errors import CassetteMiss
from sharpen.core.lm.messages import ChatRequest, ChatResponse, Engine, ThreadedEngine
from sharpen.core.lm.scripted import difference, nearest

__all__ = ["CassetteEngine", "cassette"]

_log = logging.getLogger(__name__)

Mode = Literal["record", "replay", "auto"]


class CassetteEngine(ThreadedEngine):
    """An engine that records another, or plays what was recorded.

    Args:
        path: the file.
        inner: the engine to ask; not for ``replay``.
        mode: ``replay`` asks nobody; ``auto`` asks for what is not there, and records it;
            ``record`` asks always, and what it records takes the place of what was there.
        model: whose replies to play; default that of ``inner``, else the only one of the file.

    Raises:
        ConfigError: no engine to record, or several models to play.
        MissingFileError: nothing to play.
        FileFormatError: a line is no recording.
    """

    def __init__(
        self,
        path: str | Path,
        inner: Engine | None = None,
        mode: Mode = "replay",
        *,
        model: str | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"mode={mode!r} must be record, replay or auto.")
        if inner is None and mode != "replay":
            raise ConfigError(f"mode={mode} needs an engine to record.")
        self.path = Path(path)
        self._inner = inner
        self._mode = mode
        self._lock = threading.Lock()
        self._drawn: Counter[str] = Counter()
        self._replies: dict[str, ChatResponse] = {}
        self._prompts: dict[str, str] = {}  # text of the last message, and its whole request
        self._models: set[str] = set()
        self._read_to = 0
        if mode == "replay" and not self.path.is_file():
            raise MissingFileError(f"no such recording: {self.path}")
        self._read()
        self.model = model or (inner.model if inner is not None else self._only_model())
        self.capabilities = (
            set(inner.capabilities) if inner is not None else {"json_mode", "n", "seed"}
        )
        self.scope = str(getattr(inner, "scope", f"cassette {self.path.resolve()}"))

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The recorded reply, or that of the other engine.

        Raises:
            CassetteMiss: it is not recorded; the message shows the nearest request and the
                difference.
        """
        numbered = self._numbered(request)
        key = numbered.digest(self.model)
        if self._mode != "record":
            found = self._find(key)
            if found is not None:
                return found
        if self._inner is None or self._mode == "replay":
            raise CassetteMiss(self._told(numbered))
        response = replace(self._inner.complete(request), raw=None)
        self._write(key, numbered, response)
        return response

    def _numbered(self, request: ChatRequest) -> ChatRequest:
        """The request with the number of its draw."""
        if request.repeat is not None or request.temperature == 0:
            return request
        plain = request.digest(self.model)
        with self._lock:
            number = self._drawn[plain]
            self._drawn[plain] += 1
        return replace(request, repeat=number)

    def _find(self, key: str) -> ChatResponse | None:
        with self._lock:
            if key not in self._replies and self._mode == "auto":
                self._read()  # what other processes recorded meanwhile
            return self._replies.get(key)

    # -- the file --------------------------------------------------------------------------------

    def _read(self) -> None:
        """Lines from where the last reading ended."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file, _locked(file.fileno(), fcntl.LOCK_SH):
            file.seek(self._read_to)
            data = file.read()
        whole, end, rest = data.rpartition(b"\n")
        if rest:
            _log.warning("%s ends inside of a line, which is left out.", self.path)
        number = 0
        for number, line in enumerate(whole.split(b"\n") if end else [], start=1):
            if line.strip():
                self._take(line, f"{self.path}: line {number} after byte {self._read_to}")
        self._read_to += len(whole) + len(end)

    def _take(self, line: bytes, where: str) -> None:
        try:
            row = json.loads(line)
            key, request = str(row["key"]), row["request"]
            response = ChatResponse.from_json(row["response"])
            prompt = ChatRequest(**request).prompt
            model = str(row["model"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileFormatError(
                f"{where} is no recording ({type(error).__name__}: {error}). Restore the file, or "
                "remove the line."
            ) from None
        self._replies[key] = response
        self._prompts[prompt] = _pretty(model, request)
        self._models.add(model)

    def _write(self, key: str, request: ChatRequest, response: ChatResponse) -> None:
        row = {
            "key": key,
            "model": self.model,
            "request": _short(request),
            "response": {k: v for k, v in response.to_json().items() if k != "raw"},
        }
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock, storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                with _locked(handle, fcntl.LOCK_EX):
                    _cut_off_half_a_line(handle)
                    while line:
                        line = line[os.write(handle, line) :]
            finally:
                os.close(handle)
            self._replies[key] = response

    # -- what is told ----------------------------------------------------------------------------

    def _only_model(self) -> str:
        if len(self._models) > 1:
            names = ", ".join(sorted(self._models))
            raise ConfigError(f"{self.path} has several models: name one with model=: {names}.")
        return next(iter(self._models), "cassette")

    def _told(self, request: ChatRequest) -> str:
        message = (
            f"{self.path} has no reply of '{self.model}' to {request.prompt!r:.400}. Record it: "
            "mode='auto' with an engine."
        )
        near = nearest(request.prompt, list(self._prompts))
        if near is None:
            return message
        asked = _pretty(self.model, _short(request))
        return f"{message} The nearest request:\n{difference(self._prompts[near], asked)}"


def _short(request: ChatRequest) -> dict[str, Any]:
    """A request without what is not given, to be read by people."""
    data = request.to_json()
    return {name: value for name, value in data.items() if value not in (None, {})}


def _pretty(model: str, request: dict[str, Any]) -> str:
    return json.dumps({"model": model, **request}, indent=1, ensure_ascii=False, sort_keys=True)


@contextmanager
def _locked(handle: int, kind: int) -> Iterator[None]:
    fcntl.flock(handle, kind)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _cut_off_half_a_line(handle: int) -> None:
    """What a process that was killed left at the end."""
    size = os.fstat(handle).st_size
    end = size
    while end and os.pread(handle, 1, end - 1) != b"\n":
        start = max(0, end - 4096)
        chunk = os.pread(handle, end - start, start)
        found = chunk.rfind(b"\n")
        end = start + found + 1 if found >= 0 else start
    if end != size:
        os.ftruncate(handle, end)


def cassette(rest: str, **options: Any) -> CassetteEngine:
    """``cassette:FILE``: replays it."""
    return CassetteEngine(Path(rest), **options)
