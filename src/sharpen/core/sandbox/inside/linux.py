"""Calls of the Linux kernel that Python has no name for: prctl, capabilities, raw system calls."""

from __future__ import annotations

import ctypes
import os
import struct

__all__ = [
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "LIBC",
    "become",
    "die_with_parent",
    "hide_from_tracers",
    "keep_capabilities",
    "no_new_privileges",
    "reap_orphans",
    "syscall",
]

LIBC = ctypes.CDLL(None, use_errno=True)

# <linux/prctl.h>
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_KEEPCAPS = 1, 4, 8
_CAPBSET_DROP, _SET_NO_NEW_PRIVS, _SET_CHILD_SUBREAPER = 24, 38, 36
_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 47, 4

# <linux/capability.h>
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_KILL = 1, 2, 3, 5
CAP_SETGID, CAP_SETUID = 6, 7
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number.

    Raises:
        OSError: it failed.
    """
    result = int(LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    if LIBC.prctl(ctypes.c_int(option), *padded) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def no_new_privileges() -> None:
    """No program that this process starts gets more rights than it has; needed for filters."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def hide_from_tracers() -> None:
    """Keep others of the same user from reading this process's memory and files in ``/proc``."""
    _prctl(_SET_DUMPABLE, 0)


def reap_orphans() -> None:
    """Become the parent of descendants whose parent has ended."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal: int, parent: int | None = None) -> None:
    """Have this process get a signal when the thread that started it ends.

    Args:
        signal: which.
        parent: the process that started this one; it may have ended before it could be said.
    """
    _prctl(_SET_PDEATHSIG, signal)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal)


def keep_capabilities(kept: tuple[int, ...]) -> None:
    """Give up all capabilities but some, for good."""
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in kept:
            try:
                _prctl(_CAPBSET_DROP, capability)
            except OSError:
                break  # no such capability, or none may be dropped
    _set_capabilities(kept)


def _set_capabilities(kept: tuple[int, ...]) -> None:
    mask = sum(1 << c for c in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable
    if LIBC.capset(header, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


def become(user: int, kept: tuple[int, ...] = ()) -> None:
    """Become another user, without groups and without capabilities but those kept."""
    os.setgroups([])
    os.setresgid(user, user, user)
    if kept:
        _prctl(_SET_KEEPCAPS, 1)
    os.setresuid(user, user, user)
    if kept:
        _set_capabilities(kept)
