"""Landlock: what a process may read, write and signal, given up by itself and for good.

Salaün, *Landlock: unprivileged access control*, Linux 5.13; the numbers are those of
``<linux/landlock.h>``. Rules bind the thread that takes them on and all that it starts. Domains
nest: a child that restricts itself again can do only what both allow, and with signals scoped it
cannot signal its parent.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from sharpen.core.sandbox.inside.linux import syscall

__all__ = ["SIGNAL_SCOPE_ABI", "abi_version", "make_ruleset", "restrict"]

SIGNAL_SCOPE_ABI = 6
"""From this version on signals and abstract sockets to processes outside are refused."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NET = (1 << 0) | (1 << 1)  # bind and connect TCP
_SCOPES = (1 << 0) | (1 << 1)  # abstract sockets, signals

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_AND_MAKE | _REFER | _TRUNCATE
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def abi_version() -> int:
    """The version that this kernel has; 0 without Landlock."""
    try:
        return syscall(
            _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION)
        )
    except OSError:
        return 0


def _handled(abi: int) -> int:
    rights = _READ | _WRITE_FILE | _REMOVE_AND_MAKE
    if abi >= 2:
        rights |= _REFER
    if abi >= 3:
        rights |= _TRUNCATE
    if abi >= 5:
        rights |= _IOCTL_DEV
    return rights


def make_ruleset(read: Iterable[str], write: Iterable[str], abi: int) -> int:
    """A ruleset that refuses all but what is named.

    Args:
        read: files and folders to read and execute; those that do not exist are left out.
        write: files and folders to change as well.
        abi: the version whose rights are used.

    Returns:
        Its file descriptor.

    Raises:
        OSError: the kernel refuses.
    """
    handled = _handled(abi)
    attributes = struct.pack("=Q", handled)
    if abi >= 4:
        attributes += struct.pack("=Q", _NET)
    if abi >= SIGNAL_SCOPE_ABI:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = syscall(
        _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    os.set_inheritable(ruleset, False)
    for paths, rights in ((read, _READ), (write, _WRITE)):
        for path in paths:
            _allow(ruleset, path, rights & handled)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, opened)
        syscall(_ADD_RULE, ctypes.c_int(ruleset), _RULE_PATH_BENEATH, rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)


def restrict(ruleset: int) -> None:
    """Take a ruleset on; ``no_new_privileges`` comes first.

    Raises:
        OSError: the kernel refuses.
    """
    syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
