"""Processes that start in milliseconds: forked from a server that has loaded what they need.

Importing torch takes more than a second. The first process that is wanted starts a server: a clean
interpreter with one thread, which imports modules and forks a copy of itself for every process
asked for. A process gets the caller's working folder and the descriptors that it is given; a
server serves as long as all else that a process inherits stays the same (environment, limits).

::

    caller --socket: modules, function, argument, descriptors--> server --fork--> process
    caller <--pipe of each process: its id, at last its exit code-- server

When the caller dies the server reads the end of its socket and ends, and the kernel kills the
processes with it. Modules that are loaded in advance may start no threads and touch no GPU: neither
outlives a fork.

``multiprocessing``'s own fork server is no choice: it runs the main script again in every process,
and keeps the environment that it was first started in.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sharpen.core.errors import ExecutionError

__all__ = ["ForkedProcess", "die_with_parent", "start_process"]

_PR_SET_PDEATHSIG = 1
_LIMITS = tuple(v for name, v in vars(resource).items() if name.startswith("RLIMIT_"))
_NUMBER = struct.Struct("<q")
_MAX_DESCRIPTORS = 64
_NO_CONCERN = ("PYTEST_CURRENT_TEST",)  # another one in each test
_lock = threading.Lock()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process ``parent``, which started it, dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call took effect
        os._exit(1)


class ForkedProcess:
    """A process that a server has forked; it is used like a ``subprocess.Popen``."""

    def __init__(self, server: _Server, pid: int, ended: int) -> None:
        self.pid = pid
        """Its process id."""
        self._server: _Server | None = server  # which ends when nobody has it any more
        self._ended = ended
        self._code = 0

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it goes on after ``timeout`` seconds.
        """
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self._server is None:
            return self._code
        if not select.select([self._ended], [], [], timeout)[0]:
            return None
        told = os.read(self._ended, _NUMBER.size)
        # A server that was killed took the process with it.
        self._code = _NUMBER.unpack(told)[0] if told else -signal.SIGKILL
        os.close(self._ended)
        self._server = None
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self._server is not None:
            os.close(self._ended)


def start_process(
    function: str,
    argument: Any,
    *,
    descriptors: Sequence[int] = (),
    output: int | None = None,
    preload: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    own_group: bool = False,
) -> ForkedProcess:
    """Start a process that calls a function and ends with the exit code which that returns.

    Args:
        function: ``module:name``; it is called with ``argument`` and the list of descriptors.
        argument: plain data, as JSON.
        descriptors: open files of this process to hand over; they have other numbers there.
        output: descriptor that standard output goes to; None throws it away. Standard error is
            this process's, standard input is empty.
        preload: modules that the server loads first, once for this process and all after it.
        environment: variables; default those of this process.
        own_group: whether the process leads a process group of its own.

    Raises:
        ExecutionError: no process can be started.
    """
    inherited = _inherited(os.environ if environment is None else environment)
    request = {
        "function": function,
        "argument": argument,
        "path": sys.path,
        "preload": list(preload),
        "own_group": own_group,
    }
    with tempfile.TemporaryFile() as content, Path(os.devnull).open("r+b") as nothing:
        content.write(json.dumps(request).encode())
        content.flush()
        folder = os.open(".", os.O_RDONLY)
        standard = (nothing.fileno(), nothing.fileno() if output is None else output, 2)
        given = [content.fileno(), folder, *standard, *descriptors]
        try:
            with _lock:
                try:
                    return _server(inherited).start(given)
                except ConnectionError:  # somebody killed it
                    _server.cache_clear()
                    return _server(inherited).start(given)
        except ConnectionError:
            raise ExecutionError(
                f"no process can be started: {sys.executable} -m {__name__} ended at once."
            ) from None
        finally:
            os.close(folder)


_Inherited = tuple[str, tuple[tuple[str, str], ...], frozenset[int], tuple[tuple[int, int], ...]]


def _inherited(environment: Mapping[str, str]) -> _Inherited:
    """What a process gets from the one that starts it: interpreter, variables, cores, limits."""
    variables = sorted(item for item in environment.items() if item[0] not in _NO_CONCERN)
    limits = tuple(resource.getrlimit(limit) for limit in _LIMITS)
    return sys.executable, tuple(variables), frozenset(os.sched_getaffinity(0)), limits


class _Server:
    """The caller's side of a server, which ends with this object."""

    def __init__(self, executable: str, variables: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                env=dict(variables),
            )
        weakref.finalize(self, _close, self._socket, process)

    def start(self, descriptors: Sequence[int]) -> ForkedProcess:
        """A process; raises ConnectionError where the server has died."""
        ended, theirs = os.pipe()
        try:
            socket.send_fds(self._socket, [b"s"], [theirs, *descriptors])
            os.close(theirs)
            theirs = -1
            told = os.read(ended, _NUMBER.size)
            if not told:
                raise BrokenPipeError
            return ForkedProcess(self, _NUMBER.unpack(told)[0], ended)
        except BaseException:
            os.close(ended)
            raise
        finally:
            if theirs >= 0:
                os.close(theirs)


def _close(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    process.wait()


@functools.lru_cache(maxsize=2)  # stages and trials have different environments
def _server(inherited: _Inherited) -> _Server:
    return _Server(inherited[0], dict(inherited[1]))


def _after_fork() -> None:
    """A forked copy of this process has no servers: those end with the process that they are of."""
    global _lock
    _lock = threading.Lock()
    _server.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def main() -> None:
    """Entry point of a server, and of the processes that it forks."""
    request, descriptors = _serve(socket.socket(fileno=int(sys.argv[1])))
    code = 1
    try:
        sys.path[:] = request["path"]
        module, name = request["function"].split(":")
        code = getattr(importlib.import_module(module), name)(request["argument"], descriptors)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    # As an interpreter ends, but for freeing all that it has loaded, which takes 0.2 s.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(caller: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork processes until the caller is gone; returns in each of them, with what it is to do."""
    server, running = os.getpid(), dict[int, int]()
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes hear of it themselves
    while True:
        ready, _, _ = select.select([caller.fileno(), awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _bury(running)
        if caller.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(caller, 1, _MAX_DESCRIPTORS)
        if not message:
            os._exit(0)
        ended, content, *descriptors = descriptors
        with os.fdopen(content, "rb") as file:
            file.seek(0)
            request = json.load(file)
        _load(request)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which end at a fork
            pid = os.fork()
        if pid == 0:
            die_with_parent(server)
            caller.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, interrupt)
            for number in (awake, wake, ended, *running.values()):
                os.close(number)
            return request, _settle(request, descriptors)
        running[pid] = ended
        if request["own_group"]:  # here too: the caller may end the group at once
            with suppress(OSError):
                os.setpgid(pid, pid)
        for number in descriptors:
            os.close(number)
        try:
            os.write(ended, _NUMBER.pack(pid))
        except BrokenPipeError:  # the caller was interrupted, and does not know of it
            os.kill(pid, signal.SIGKILL)


def _bury(running: dict[int, int]) -> None:
    """Tell of processes that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        ended = running.pop(pid)
        with suppress(BrokenPipeError):  # nobody wants to know
            os.write(ended, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(ended)


def _load(request: Mapping[str, Any]) -> None:
    """Import what is to be there in advance; what cannot be imported fails where it is used."""
    new = [name for name in request["preload"] if name not in sys.modules]
    if not new:
        return
    sys.path[:] = request["path"]
    for name in new:
        with suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that looking for garbage copies no page


def _settle(request: Mapping[str, Any], descriptors: Sequence[int]) -> list[int]:
    """Be at home in a new process; gives the descriptors for the function."""
    folder, *standard = descriptors[:4]
    if request["own_group"]:
        os.setpgid(0, 0)
    os.fchdir(folder)
    Path("/proc/self/comm").write_text(request["function"].split(".")[-1])  # for ``ps`` and ``top``
    for number, given in enumerate(standard):
        os.dup2(given, number)
    for number in descriptors[:4]:
        os.close(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # each draws numbers of its own
    return list(descriptors[4:])


if __name__ == "__main__":
    main()
