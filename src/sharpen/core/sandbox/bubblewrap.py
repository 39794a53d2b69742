"""Namespaces and a file system of its own for a sandbox, by the program ``bwrap``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from sharpen.core.sandbox.python import Interpreter

__all__ = ["INSIDE_SCRATCH", "command", "failure", "places", "program"]

INSIDE_SCRATCH = "/tmp"
_MOUNTED = "/mnt"
_HIDDEN = (INSIDE_SCRATCH, "/proc", "/dev", _MOUNTED)  # what lies below is not seen inside
_NOBODY = "65534"
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_KEPT = ("DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "KILL", "SETGID", "SETUID")


def program() -> str | None:
    """The path of ``bwrap``; None without it."""
    return shutil.which("bwrap")


def places(interpreter: Interpreter) -> dict[str, str]:
    """Where each folder of an interpreter is inside: at its own place, unless that is hidden."""
    return {
        folder: f"{_MOUNTED}/{i}" if _is_below(folder, _HIDDEN) else folder
        for i, folder in enumerate(interpreter.read)
    }


def command(
    bwrap: str,
    interpreter: Interpreter,
    environment: Mapping[str, str],
    scratch_bytes: int,
    info_fd: int | None = None,
) -> list[str]:
    """The words before the command that is to run in the namespaces.

    As root no user namespace is made: jobs become a user that nothing else is, which the kernel
    counts the processes of, as it does not for root under another name. Others get one.

    Args:
        bwrap: the program's path.
        interpreter: what is mounted of it.
        environment: all the variables there are.
        scratch_bytes: size of the folder that jobs may write to.
        info_fd: where bwrap says which process it has started.
    """
    words = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1"]
    words += ["--cap-drop", "ALL"]
    if os.geteuid() == 0:
        for name in _KEPT:
            words += ["--cap-add", f"CAP_{name}"]
    else:
        words += ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]
    words += ["--hostname", "sandbox", "--clearenv"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    words += ["--ro-bind", "/usr", "/usr"]
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for folder, place in places(interpreter).items():
        if not _is_below(folder, ("/usr", *_SYSTEM)):
            for parent in reversed(Path(place).parents[:-1]):
                words += ["--perms", "0755", "--dir", str(parent)]  # jobs are another user
            words += ["--ro-bind", folder, place]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--perms", "1777", "--size", str(scratch_bytes), "--tmpfs", INSIDE_SCRATCH]
    words += ["--chdir", INSIDE_SCRATCH]
    if info_fd is not None:
        words += ["--info-fd", str(info_fd)]
    return [*words, "--"]


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


@cache
def failure(bwrap: str, interpreter: Interpreter) -> str | None:
    """Why namespaces cannot be made here; None where they can."""
    words = command(bwrap, interpreter, {}, 1 << 20)
    inside = interpreter.moved(places(interpreter))
    line = [*words, inside.executable, "-I", "-S", "-c", "pass"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip()[-300:] or "bwrap failed"
