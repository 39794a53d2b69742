"""A user that nothing else is, for the jobs of a sandbox; processes of the present one."""

from __future__ import annotations

import os
import random
from pathlib import Path

__all__ = ["count_tasks", "unused_user"]

_SAFE_FROM, _SAFE_TO = 1_000_000_000, 2_000_000_000


def unused_user() -> int:
    """The number of a user that no account and no process has.

    Raises:
        OSError: there is none.
    """
    low, high = _mapped()
    taken = _users_of_processes()
    for _ in range(1000):
        user = random.SystemRandom().randrange(low, high)
        if user not in taken and not _has_account(user):
            return user
    raise OSError(f"no unused user between {low} and {high}")


def _mapped() -> tuple[int, int]:
    """Numbers that mean a user here: containers have few."""
    best = (0, 0)
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        low, high = max(inside, _SAFE_FROM), min(inside + count, _SAFE_TO)
        if low < high:
            return low, high
        if count > best[1] - best[0]:
            best = (inside, inside + count)
    low, high = best
    return max(low, high - 10_000, 1000), high


def _has_account(user: int) -> bool:
    import pwd

    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _users_of_processes() -> set[int]:
    found = set()
    for path in _processes():
        try:
            found.add(path.stat().st_uid)
        except OSError:
            continue
    return found


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def count_tasks() -> int:
    """Threads of the present user, which is what the kernel's limit of processes counts."""
    own, count = os.getuid(), 0
    for path in _processes():
        try:
            if path.stat().st_uid == own:
                count += len(list((path / "task").iterdir()))
        except OSError:
            continue
    return count
