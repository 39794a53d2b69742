"""A running sandbox, seen from outside: start it, have it run jobs, end it.

Nothing that comes out of it is believed to be more than bytes: a message that is too long or is no
value ends the sandbox and counts as a failure of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sharpen.core.errors import ExecutionError
from sharpen.core.sandbox import bubblewrap
from sharpen.core.sandbox.cgroup import Group
from sharpen.core.sandbox.inside import scratch
from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.codec import CodecError
from sharpen.core.sandbox.limits import Limits
from sharpen.core.sandbox.python import ENVIRONMENT, boot_bytes, boot_words, interpreter
from sharpen.core.sandbox.tiers import detect_tiers
from sharpen.core.sandbox.users import count_tasks, unused_user

__all__ = ["Plan", "Sandbox", "SandboxFailed"]

_START_S = 60.0
_GRACE_S = 5.0
_NEWEST_LANDLOCK = 99
_COME_AND_GO = 64


class SandboxFailed(ExecutionError):
    """A sandbox did not start, ended, or stopped answering."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How sandboxes of a pool are made."""

    tier: int
    """Tier of protection, 0 to 3."""

    limits: Limits
    """Of jobs that have none of their own; also the size of the folder they write to."""

    packages: tuple[str, ...] = ()
    """Packages that jobs may import; loaded at the start."""

    most_landlock: int = _NEWEST_LANDLOCK
    """Version of Landlock that is used at most, as on an older kernel."""


def _fast_folder() -> str | None:
    """Where files of jobs are made and removed quickly: in memory; None where that is not there."""
    folder = "/dev/shm"
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


class Sandbox:
    """A sandbox that runs one job at a time.

    Args:
        plan: how it is made.
        role: ``program`` or ``tests``; one that has run tests, and so has seen what they expect,
            runs no programs.

    Raises:
        SandboxFailed: it does not start.
    """

    def __init__(self, plan: Plan, role: str = "program") -> None:
        self.plan = plan
        self.group: Group | None = None
        self.runs = 0
        self._ended_for_memory = 0
        self._memory_before = 0
        self._folder: Path | None = None
        self._limits: Mapping[str, Any] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process: subprocess.Popen[bytes] | None = None
        ours, theirs = socket.socketpair()
        self._control = ours
        try:
            with theirs:
                self._start(theirs, role)
            self.state = self._hello()
        except BaseException:
            self.close()
            raise

    @property
    def baseline_kib(self) -> int:
        """Peak memory of a job that does nothing, KiB."""
        return int(self.state["baseline_kib"])

    @property
    def pid(self) -> int:
        """The process that was started: the keeper, or bwrap."""
        assert self._process is not None
        return self._process.pid

    def _start(self, theirs: socket.socket, role: str) -> None:
        plan = self.plan
        python = interpreter(with_packages=bool(plan.packages))
        in_namespace = plan.tier >= 2
        is_root = os.geteuid() == 0
        user = unused_user() if is_root and plan.tier >= 1 else None
        if in_namespace:
            folder = bubblewrap.INSIDE_SCRATCH
        else:
            self._folder = Path(
                tempfile.mkdtemp(prefix=f"sharpen-sandbox-{os.getpid()}-", dir=_fast_folder())
            )
            folder = str(self._folder)
            if user is not None:
                os.chown(folder, user, user)
        roots = python.read if in_namespace else ()
        closed = python.unreadable_below(roots) if user is not None else None
        inside = python.moved(bubblewrap.places(python)) if in_namespace else python
        config = {
            "control": theirs.fileno(),
            "tier": plan.tier,
            "role": role,
            "scratch": folder,
            "read": ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", *inside.read],
            "sys_path": list(inside.sys_path),
            "packages": list(plan.packages),
            "user": user,
            "reads_all": closed is not None,
            "first_of_namespace": in_namespace,
            "has_keeper": not in_namespace,
            "most_landlock": plan.most_landlock,
            "tasks": self._tasks_outside(user is not None),
        }
        words = boot_words(inside.executable)
        info: tuple[int, int] | None = None
        if in_namespace:
            path = bubblewrap.program()
            assert path is not None
            info = os.pipe()
            size = plan.limits.scratch_bytes
            words = [*bubblewrap.command(path, python, ENVIRONMENT, size, info[1]), *words]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=(theirs.fileno(), *(info[1:] if info else ())),
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxFailed(f"a sandbox cannot start: {error}.") from error
        finally:
            if info:
                os.close(info[1])
        if info:
            with open(info[0], "rb") as file:  # noqa: PTH123
                self._enter_group(file.read())
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended; hello says why
            self._process.stdin.write(boot_bytes(config))
            self._process.stdin.flush()

    def _tasks_outside(self, has_own_user: bool) -> int:
        """Tasks that the kernel counts together with those of a job."""
        if has_own_user:
            return 0
        # Its own namespace counts the supervisor; without one all tasks of the user count, which
        # come and go while the sandbox is up.
        return 1 if self.plan.tier >= 2 else count_tasks() + _COME_AND_GO

    def _enter_group(self, info: bytes) -> None:
        """Put the first process into a control group, before it runs anything of ours."""
        if self.plan.tier < 3:
            return
        home = detect_tiers().cgroup
        assert home is not None
        try:
            pid = int(json.loads(info)["child-pid"])
            self.group = home.make()
            self.group.limit(1 << 30, 1 << 10)
            self.group.add(pid)
        except (OSError, ValueError, KeyError) as error:
            raise SandboxFailed(
                f"a control group cannot be used: {error}. Ask for tier 2 where that is enough."
                f" {self._said()}"
            ) from error

    def _hello(self) -> dict[str, Any]:
        state = self._receive(_START_S, 1 << 20)
        if "failed" in state:
            raise SandboxFailed(
                f"a sandbox cannot start: {state['failed']}. Is the package installed, and the"
                " folder of the interpreter readable?"
            )
        plan = self.plan
        if plan.tier >= 1 and not (state["seccomp"] and state["landlock"] >= 1):
            raise SandboxFailed(f"a sandbox has less protection than tier {plan.tier}: {state}.")
        return state

    def _receive(self, timeout_s: float, max_bytes: int) -> dict[str, Any]:
        self._control.settimeout(timeout_s)
        try:
            value, fds = receive(self._control, max_bytes)
        except TimeoutError:
            raise SandboxFailed(f"a sandbox did not answer within {timeout_s:.0f} s.") from None
        except (EOFError, OSError):
            raise SandboxFailed(f"a sandbox ended by itself. {self._said()}".strip()) from None
        except CodecError as error:
            raise SandboxFailed(f"a sandbox sent what is no message: {error}.") from None
        for fd in fds:
            os.close(fd)
        if not isinstance(value, dict):
            raise SandboxFailed("a sandbox sent what is no message.")
        return value

    def _said(self) -> str:
        """The end of what it printed as errors."""
        try:
            size = os.fstat(self._errors.fileno()).st_size
            data = os.pread(self._errors.fileno(), 500, max(0, size - 500))
        except (OSError, ValueError):
            return ""
        return data.decode(errors="replace").strip()

    def send(self, job: Mapping[str, Any], limits: Limits, fds: tuple[int, ...] = ()) -> None:
        """Have it begin a job.

        Raises:
            SandboxFailed: it has ended.
        """
        inside = limits.inside(has_cgroup=self.group is not None)
        if self.group is not None:
            self._memory_before = self.group.start_peak()
            if inside != self._limits:
                most = limits.memory_bytes + self._memory_before
                self.group.limit(most, limits.processes + 1)
        self._limits = inside
        self.runs += 1
        self._control.settimeout(_START_S)
        try:
            send(self._control, {**job, "limits": inside}, fds)
        except (OSError, CodecError) as error:
            raise SandboxFailed(f"a sandbox does not take a job: {error}.") from None

    def report(self, limits: Limits) -> dict[str, Any]:
        """What was seen of the job that it was sent, once that has ended.

        Raises:
            SandboxFailed: it has ended or does not answer.
        """
        most = limits.result_bytes + limits.output_bytes + (4 << 20)
        return self._receive(limits.wall_limit_s + _GRACE_S, most)

    def lacked_memory(self) -> bool:
        """Whether the kernel has ended a process of it for want of memory since the last look."""
        assert self.group is not None
        before, self._ended_for_memory = self._ended_for_memory, self.group.out_of_memory()
        return self._ended_for_memory > before

    def peak_mib(self, job_kib: int) -> float:
        """Peak memory of the last job beyond that of one that does nothing, MiB.

        Args:
            job_kib: peak of its first process.
        """
        own = self.beyond_idle_mib(job_kib)
        peak = self.group.peak() if self.group is not None else None
        return own if peak is None else max(own, (peak - self._memory_before) / (1 << 20))

    def beyond_idle_mib(self, job_kib: int) -> float:
        """Memory beyond that of a job that does nothing, MiB, of a job that has some KiB."""
        return max(0.0, (job_kib - self.baseline_kib) / 1024)

    def close(self) -> None:
        """End it and all in it; leaves no process, no folder, no group."""
        self._control.close()
        if self._process is not None:
            if self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
            if self.plan.tier >= 2:
                self._process.kill()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._errors.close()
        if self.group is not None:
            self.group.remove()
            self.group = None
        if self._folder is not None:
            with contextlib.suppress(OSError):
                scratch.empty(str(self._folder))
                self._folder.rmdir()
            self._folder = None
