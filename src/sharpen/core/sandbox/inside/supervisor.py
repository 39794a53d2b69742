"""The process that stays inside a sandbox: it gives up its rights, then forks a child for each job.

It is the only one here that is trusted, and it reads nothing of what jobs write: it passes bytes on
and says what it has seen from outside, how a job ended and what it used. After each job whatever
the job has started is ended and its folder is emptied.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import linecache
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from sharpen.core.sandbox.inside import landlock, linux, processes, scratch, seccomp
from sharpen.core.sandbox.inside.calls import run_judge, serve_calls
from sharpen.core.sandbox.inside.channel import LENGTH, receive, send
from sharpen.core.sandbox.inside.codec import encode
from sharpen.core.sandbox.inside.keeper import keep
from sharpen.core.sandbox.inside.program import run_calls

__all__ = ["main"]

# What small programs import; a child has them without reading a file. Not random, nor statistics,
# which imports it: each child of a process that has it seeds it anew, 0.2 ms a job. Nor threading:
# each child sees to all threads, 0.4 ms.
PRELOADED = (
    *("bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "fractions"),
    *("functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re", "string"),
    "typing",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_TICK_S = 0.05
_SAMPLE_S, _MOST_SAMPLES = 0.005, 20_000
_EMPTY_S = 1.0
_WARM_RUNS = 20  # the interpreter adapts code that has run eight times
_KEPT = (
    linux.CAP_DAC_OVERRIDE,
    linux.CAP_DAC_READ_SEARCH,
    linux.CAP_FOWNER,
    linux.CAP_KILL,
    linux.CAP_SETGID,
    linux.CAP_SETUID,
)


class Supervisor:
    """Runs jobs, one after another.

    Args:
        config: ``tier``, ``role`` (``program`` or ``tests``), ``scratch``, ``read`` (paths),
            ``sys_path``, ``packages``, ``user`` (what jobs become, or None), ``reads_all`` (jobs
            may read what is the superuser's), ``first_of_namespace``, ``has_keeper``,
            ``most_landlock``, ``tasks`` (processes of the user outside, or None where that is
            unknown).
        control: to the process outside.
    """

    def __init__(self, config: dict[str, Any], control: socket.socket) -> None:
        self.config = config
        self.control = control
        self.machine = os.uname().machine
        self.landlock: int = min(landlock.abi_version(), config["most_landlock"])
        self.restricted = config["tier"] >= 1
        self.broadcast = False
        self.job_rules = -1
        self.own_pid = os.getpid()
        self.victim_fd = -1
        self.versions = {"python": platform.python_version()}

    def prepare(self) -> dict[str, Any]:
        """Load packages and give up rights; gives what is true from now on."""
        sys.path[:] = [*sys.path, *self.config["sys_path"]]
        for name in PRELOADED:
            importlib.import_module(name)
        for name in self.config["packages"]:
            module = importlib.import_module(name)
            self.versions[name] = str(getattr(module, "__version__", "unknown"))
        os.chdir(self.config["scratch"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):
            self.victim_fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        linux.reap_orphans()
        if self.restricted:
            self._restrict()
        _warm_up()
        gc.collect()
        gc.freeze()
        gc.disable()
        baseline = self._baseline()
        return {
            "landlock": self.landlock,
            "signals_scoped": self.landlock >= landlock.SIGNAL_SCOPE_ABI,
            "seccomp": self.restricted,
            "broadcast": self.broadcast,
            "baseline_kib": baseline,
            "versions": self.versions,
        }

    def _restrict(self) -> None:
        linux.hide_from_tracers()
        if os.geteuid() == 0:
            linux.keep_capabilities(_KEPT)
        linux.no_new_privileges()
        read = [*self.config["read"], "/dev/urandom", "/dev/random"]
        write = [self.config["scratch"], *_DEVICES]
        self.job_rules = landlock.make_ruleset(read, write, self.landlock)
        own = landlock.make_ruleset([*read, "/proc"], write, self.landlock)
        landlock.restrict(own)
        os.close(own)
        seccomp.install(seccomp.program_filter(self.machine))
        # To be the first process of a namespace, or one whose signals are scoped, is what makes
        # "all processes" mean this sandbox's.
        self.broadcast = bool(self.config["first_of_namespace"]) or self._signals_end_here()

    def _signals_end_here(self) -> bool:
        try:
            os.kill(os.getppid(), 0)
        except PermissionError:
            return self.landlock >= landlock.SIGNAL_SCOPE_ABI
        return False

    def _baseline(self) -> int:
        """Peak memory of a job that does nothing, in KiB.

        Raises:
            OSError: a job cannot give up its rights here.
        """
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if self.restricted:
                    landlock.restrict(self.job_rules)
                self._become_user()
                code = 0
            finally:
                os._exit(code)
        _, status, used = os.wait4(pid, 0)
        if status != 0:
            raise OSError("a job cannot become another user or take rules on")
        return int(used.ru_maxrss)

    def run(self, job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Run a job in a child; gives what was seen of it."""
        result, outcome = os.pipe()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self._oom_score(b"1000")  # if memory runs out, children go first
        begin = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._become_job(job, fds, outcome, out_end, err_end)
        self._oom_score(b"0")
        for fd in (outcome, out_end, err_end, *fds):
            os.close(fd)
        fds_of_job = (result, out, err)
        watched = _Watched(self, job["limits"], pid, begin, fds_of_job, job.get("sampled", False))
        try:
            report = watched.until_it_ends()
        finally:
            for fd in (result, out, err):
                os.close(fd)
        return report

    def _oom_score(self, value: bytes) -> None:
        if self.victim_fd >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self.victim_fd, value, 0)

    def _become_job(
        self, job: dict[str, Any], fds: list[int], outcome: int, out: int, err: int
    ) -> NoReturn:
        """In the child: put on the limits of a job, then run the program."""
        code = 70
        try:
            gc.enable()
            os.setsid()
            self._take_descriptors([1, 2, 3, 4], [out, err, outcome, *fds])
            if self.restricted:
                landlock.restrict(self.job_rules)
            os.closerange(4 + len(fds), 1 << 10)
            self._limit(job["limits"])
            linux.die_with_parent(signal.SIGKILL, self.own_pid)
            if self.restricted and self.landlock < landlock.SIGNAL_SCOPE_ABI:
                seccomp.install(seccomp.own_signals_filter(self.machine, os.getpid()))
            if not fds:
                run_calls(job, 3)
            elif self.config["role"] == "tests":
                run_judge(job, 3, socket.socket(fileno=4))
            else:
                serve_calls(job, 3, socket.socket(fileno=4))
            code = 0
        finally:
            os._exit(code)

    def _take_descriptors(self, wanted: list[int], given: list[int]) -> None:
        """Files under the numbers that a job has them by; the ruleset stays above them."""
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in given]
        if self.job_rules >= 0:
            self.job_rules = fcntl.fcntl(self.job_rules, fcntl.F_DUPFD_CLOEXEC, 64)
        for fd, number in zip(high, wanted, strict=False):
            os.dup2(fd, number, inheritable=number < 3)

    def _become_user(self) -> None:
        user = self.config["user"]
        if user is not None:
            kept = (linux.CAP_DAC_READ_SEARCH,) if self.config["reads_all"] else ()
            linux.become(user, kept)

    def _limit(self, limits: dict[str, Any]) -> None:
        cpu = max(1, int(-(-limits["cpu_s"] // 1)))
        self._become_user()
        pairs = [
            (resource.RLIMIT_CPU, cpu, cpu + 1),
            (resource.RLIMIT_AS, limits["address_bytes"], limits["address_bytes"]),
            (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
            (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        ]
        if self.config["tasks"] is not None:
            most = self.config["tasks"] + limits["processes"]
            pairs.append((resource.RLIMIT_NPROC, most, most))
        for kind, soft, hard in pairs:
            _, present = resource.getrlimit(kind)
            if present != resource.RLIM_INFINITY:
                soft, hard = min(soft, present), min(hard, present)
            resource.setrlimit(kind, (soft, hard))


class _Watched:
    """A job under way: what it writes is read, and what it uses is compared with its limits."""

    def __init__(
        self,
        supervisor: Supervisor,
        limits: dict[str, Any],
        pid: int,
        begin: float,
        fds: tuple[int, int, int],
        sampled: bool,
    ) -> None:
        self.supervisor = supervisor
        self.limits = limits
        self.pid = pid
        self.begin = begin
        self.result, self.out, self.err = fds
        self.read: dict[int, bytearray] = {fd: bytearray() for fd in fds}
        self.broken: str | None = None
        self.checked = begin
        self.tick_s = _SAMPLE_S if sampled else _TICK_S
        self.samples: list[tuple[float, int]] | None = [] if sampled else None
        self.poll = select.poll()
        self.pidfd = os.pidfd_open(pid)
        for fd in (*fds, self.pidfd, supervisor.control.fileno()):
            self.poll.register(fd, select.POLLIN)
        self.open = set(fds)
        for fd in fds:
            os.set_blocking(fd, False)

    def until_it_ends(self) -> dict[str, Any]:
        """Watch until the job has ended or has to; leaves nothing of it."""
        control = self.supervisor.control.fileno()
        before = _reaped_cpu_s()
        ended = False
        try:
            while not ended and self.broken is None:
                for fd, _ in self.poll.poll(self.tick_s * 1000):
                    if fd == self.pidfd:
                        ended = True
                    elif fd == control:
                        raise EOFError  # nobody waits for the result
                    else:
                        self._take(fd)
                self._sample()
                self._check(before)
        finally:
            os.close(self.pidfd)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        wall = time.monotonic() - self.begin
        for fd in tuple(self.open):
            self._take(fd)
        leftover = 0
        clean = processes.reap()
        if not clean:
            leftover = len(processes.descendants(os.getpid()))
            clean = processes.kill_all(broadcast=self.supervisor.broadcast)
        folder = self.supervisor.config["scratch"]
        return {
            "frame": bytes(self.read[self.result]),
            "stdout": bytes(self.read[self.out]),
            "stderr": bytes(self.read[self.err]),
            "broken": self.broken,
            "exit_code": os.waitstatus_to_exitcode(status),
            "cpu_s": _reaped_cpu_s() - before,
            "wall_s": wall,
            "peak_kib": used.ru_maxrss,
            "samples": self.samples or [],
            "leftover": leftover,
            "clean": scratch.empty(folder, _EMPTY_S) and clean,
        }

    def _take(self, fd: int) -> None:
        """Read what there is, as far as the limits allow."""
        held = self.read[fd]
        while self.broken is None:
            try:
                part = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            if not part:
                self.poll.unregister(fd)
                self.open.discard(fd)
                return
            held += part
            printed = len(self.read[self.out]) + len(self.read[self.err])
            if len(self.read[self.result]) > self.limits["result_bytes"] + LENGTH.size:
                self.broken = "result"
            elif printed > self.limits["output_bytes"]:
                self.broken = "output"

    def _sample(self) -> None:
        """Note what memory the job has, in KiB, where that is asked for."""
        if self.samples is not None and len(self.samples) < _MOST_SAMPLES:
            kib = processes.memory_kib(self.pid)
            if kib:
                self.samples.append((time.monotonic() - self.begin, kib))

    def _check(self, before: float) -> None:
        """Compare a job that takes a while with its limits, now and then."""
        now = time.monotonic()
        if self.broken is not None or now < self.checked + _TICK_S:
            return
        self.checked = now
        if now > self.begin + self.limits["wall_s"]:
            self.broken = "wall"
            return
        cpu_s = processes.cpu_seconds(os.getpid()) + _reaped_cpu_s() - before
        if cpu_s > self.limits["cpu_s"]:
            self.broken = "cpu"
            return
        most = self.limits["scratch_bytes"]
        if scratch.used_bytes(self.supervisor.config["scratch"], most) > most:
            self.broken = "scratch"


def _warm_up() -> None:
    """Run a program of ours as one of a job is run.

    What the interpreter makes and adapts when it does something for the first time is then there
    before the fork, and no child writes to those pages again.
    """
    job = {
        "source": "def f(x):\n    return x\n",
        "entry": "f",
        "names": encode({}),
        "inputs": [(encode((1,)), encode({}))],
        "catch": False,
        "mutated": False,
        "clock": None,
        "digests": False,
        "limits": {"result_bytes": 1 << 20},
    }
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for _ in range(_WARM_RUNS):
        run_calls(job, null)
    os.close(null)
    del sys.modules["program"]
    linecache.clearcache()


def _reaped_cpu_s() -> float:
    """Processor time of all children that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(config: dict[str, Any]) -> NoReturn:
    """Serve jobs until nobody asks any more."""
    if config["has_keeper"]:
        keep(config["scratch"])
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for name in [n for n in sys.modules if n.partition(".")[0] == "sharpen"]:
        del sys.modules[name]  # a program that is run here finds no trace of it
    control = socket.socket(fileno=config["control"])
    control.set_inheritable(False)
    supervisor = Supervisor(config, control)
    code = 0
    try:
        try:
            hello = supervisor.prepare()
        except Exception as error:
            send(control, {"failed": f"{type(error).__name__}: {error}"})
            raise
        send(control, hello)
        while True:
            job, fds = receive(control)
            send(control, supervisor.run(job, fds))
    except (EOFError, OSError):
        pass
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = 1
    finally:
        processes.kill_all(broadcast=supervisor.broadcast)
        os._exit(code)
