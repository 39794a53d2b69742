"""Inside of the user's tests: record the arguments of one function, or load another text of a file.

Loaded by ``sitecustomize`` in each Python process that the tests start; the standard library and
the codec alone are imported. Calls are seen by :func:`sys.setprofile`, so that it does not matter
under which name a module was imported; each is copied before the function can change it.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.machinery
import os
import struct
import sys
import threading
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["MOST_RECORDS", "read_records", "read_refusals", "start"]

MOST_RECORDS = 300
"""Different calls that are kept."""

_MOST_CALLS = 20_000  # that are looked at
_MOST_BYTES = 1 << 22  # of one call
_ALL_BYTES = 1 << 24  # of all calls that are looked at
_MOST_REFUSED = 200
_LENGTH = struct.Struct("<I")
_VARARGS, _VARKEYWORDS = 4, 8  # flags of code


def start() -> None:
    """Do what the environment asks for."""
    file = os.environ.get("SHARPEN_IMPROVE_FILE", "")
    out = os.environ.get("SHARPEN_IMPROVE_OUT")
    if not out:
        return
    if os.environ.get("SHARPEN_IMPROVE_PROFILE"):
        _profile(out)
    text = os.environ.get("SHARPEN_IMPROVE_TEXT")
    if text:
        _stand_in(file, text, out)
    entry = os.environ.get("SHARPEN_IMPROVE_ENTRY")
    if entry:
        recorder = _Recorder(file, entry, os.environ["SHARPEN_IMPROVE_KIND"], out)
        recorder.begin()
    _next_site_module(out)


def _next_site_module(ours: str) -> None:
    """Load the module of this name that would have been found without ours."""
    sys.path = [one for one in sys.path if one != ours]
    this = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        if this is not None:
            sys.modules["sitecustomize"] = this


def _profile(out: str) -> None:
    """Leave how often each function was called and how long it took."""
    import cProfile
    import marshal

    profile = cProfile.Profile()

    def write() -> None:
        profile.disable()
        profile.create_stats()
        stats = profile.stats
        rows = {key: row[:4] for key, row in stats.items()}
        Path(out, f"profile-{os.getpid()}").write_bytes(marshal.dumps(rows))

    atexit.register(write)
    profile.enable()


def _stand_in(file: str, text: str, out: str) -> None:
    """Let imports of a file get another text, with no compiled copy read or written."""
    loader = importlib.machinery.SourceFileLoader
    get_data, path_stats = loader.get_data, loader.path_stats

    def is_it(path: Any) -> bool:
        return bool(os.path.realpath(os.fspath(path)) == file)

    def data(self: Any, path: Any) -> bytes:
        if not is_it(path):
            return get_data(self, path)
        Path(out, f"loaded-{os.getpid()}").touch()
        return Path(text).read_bytes()

    def stats(self: Any, path: Any) -> Any:
        if is_it(path):
            raise OSError("it has no compiled copy")
        return path_stats(self, path)

    loader.get_data = data  # type: ignore[method-assign]
    loader.path_stats = stats  # type: ignore[method-assign]


class _Recorder:
    """Keeps different calls of one function until there are enough."""

    def __init__(self, file: str, entry: str, kind: str, out: str) -> None:
        from sharpen.core.sandbox.inside.codec import CodecError, encode

        self.file, self.entry, self.kind, self.out = file, entry, kind, out
        self.encode, self.refused = encode, (CodecError, RecursionError)
        self.known: dict[CodeType, bool] = {}
        self.found: dict[bytes, None] = {}
        self.calls = self.bytes = self.refusals = 0

    def begin(self) -> None:
        """Look at all calls from now on."""
        atexit.register(self.write)
        os.register_at_fork(after_in_child=self.clear)
        threading.setprofile(self.look)
        sys.setprofile(self.look)

    def clear(self) -> None:
        """Forget what another process writes."""
        self.found.clear()

    def look(self, frame: Any, event: str, arg: Any) -> None:
        """A call of anything."""
        if event != "call":
            return
        code = frame.f_code
        wanted = self.known.get(code)
        if wanted is None:
            same = code.co_qualname == self.entry
            wanted = same and os.path.realpath(code.co_filename) == self.file
            self.known[code] = wanted
        # A generator is called anew each time that it goes on.
        if wanted and frame.f_lineno == code.co_firstlineno:
            self.record(frame, code)

    def record(self, frame: Any, code: CodeType) -> None:
        """Keep the arguments of a call, where they are plain values."""
        self.calls += 1
        try:
            data = self.encode(self.arguments(frame, code), strict=True, max_bytes=_MOST_BYTES)
        except self.refused:
            self.refusals += 1
        else:
            self.found[data] = None
            self.bytes += len(data)
        enough = len(self.found) >= MOST_RECORDS or self.bytes >= _ALL_BYTES
        if enough or self.calls >= _MOST_CALLS or self.refusals >= _MOST_REFUSED:
            threading.setprofile(None)
            sys.setprofile(None)

    def arguments(self, frame: Any, code: CodeType) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as they are when the function begins."""
        values = frame.f_locals
        count = code.co_argcount
        names = code.co_varnames
        args = [values[name] for name in names[:count]]
        if self.kind == "function" and not code.co_flags & _VARARGS:
            args = _without_defaults(args, frame.f_globals.get(self.entry), code)
        at = count + code.co_kwonlyargcount
        if code.co_flags & _VARARGS:
            args += values[names[at]]
            at += 1
        kwargs = {name: values[name] for name in names[count : count + code.co_kwonlyargcount]}
        if code.co_flags & _VARKEYWORDS:
            kwargs |= values[names[at]]
        if self.kind == "method":
            args[0] = dict(vars(args[0])) if hasattr(args[0], "__dict__") else object()
        elif self.kind == "classmethod":
            del args[0]
        return tuple(args), kwargs

    def write(self) -> None:
        """Leave what was found for :func:`read_records`."""
        sys.setprofile(None)
        if self.found:
            parts = [_LENGTH.pack(len(data)) + data for data in self.found]
            Path(self.out, f"records-{os.getpid()}").write_bytes(b"".join(parts))
        if self.refusals:
            Path(self.out, f"refused-{os.getpid()}").write_text(str(self.refusals))


def _without_defaults(args: list[Any], function: Any, code: CodeType) -> list[Any]:
    """Arguments without the last ones that are what the function has for them anyway."""
    defaults = getattr(function, "__defaults__", None) or ()
    if getattr(function, "__code__", None) is not code:
        return args
    for default in defaults[::-1]:
        if args[-1] is not default:
            break
        args = args[:-1]
    return args


def read_records(folder: Path) -> list[bytes]:
    """Arguments that processes have left in a folder, none twice."""
    found: dict[bytes, None] = {}
    for path in sorted(folder.glob("records-*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            found[data[at : at + length]] = None
            at += length
    return list(found)[:MOST_RECORDS]


def read_refusals(folder: Path) -> int:
    """How many calls were seen whose arguments are no plain values."""
    return sum(int(path.read_text()) for path in folder.glob("refused-*"))
