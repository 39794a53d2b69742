"""The process above a supervisor that has no namespace of its own, which ends all it has left.

It is outside the restrictions, so that nothing inside can signal it. It adopts every orphan, and
when the supervisor ends, or whoever started it, ends all of them and removes their folder.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import NoReturn

from sharpen.core.sandbox.inside import linux, processes, scratch

__all__ = ["keep"]


def keep(folder: str) -> None:
    """Fork: the child goes on as the supervisor, this process stays above it and never returns.

    Args:
        folder: what jobs may write to.
    """
    linux.reap_orphans()
    starter = os.getppid()
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        _stay(pid, starter, folder)
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)


def _stay(supervisor: int, starter: int, folder: str) -> NoReturn:
    os.closerange(3, 1 << 10)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = os.pidfd_open(supervisor)
    poll = select.poll()
    poll.register(0, 0)  # the starter's end of it closes
    poll.register(ended, select.POLLIN)
    while not poll.poll(1000) and os.getppid() == starter:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGKILL)
    processes.kill_all(broadcast=False)
    with contextlib.suppress(OSError):
        scratch.empty(folder)
        os.rmdir(folder)  # noqa: PTH106 - pathlib is slow to load
    os._exit(0)
