"""Control groups, versions 1 and 2: the memory and the processes of all jobs of a sandbox together.

A group is made below the one that this process is in, or, with version 2, beside it where that one
may have no children because it has processes. Groups whose makers were killed before they could
remove them are removed by the next process that looks.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CgroupHome", "Group", "find_home"]

_PREFIX = "sharpen-sandbox-"
_NEEDED = ("memory", "pids")


@dataclass(frozen=True, slots=True)
class CgroupHome:
    """Where groups can be made."""

    version: int
    """1 or 2."""

    folders: tuple[tuple[str, Path], ...]
    """Controller and folder; with version 2 all of them have one folder."""

    def make(self) -> Group:
        """A new group.

        Raises:
            OSError: the kernel refuses.
        """
        name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        made: dict[str, Path] = {}
        try:
            for controller, folder in self.folders:
                path = folder / name
                path.mkdir(exist_ok=self.version == 2)
                made[controller] = path
        except OSError:
            for path in set(made.values()):
                path.rmdir()
            raise
        return Group(self.version, made)

    def sweep(self) -> None:
        """Remove groups whose maker has ended."""
        for folder in {folder for _, folder in self.folders}:
            for path in folder.glob(f"{_PREFIX}*"):
                pid = path.name.removeprefix(_PREFIX).partition("-")[0]
                if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                    with contextlib.suppress(OSError):
                        path.rmdir()


class Group:
    """A group of processes with limits."""

    def __init__(self, version: int, folders: dict[str, Path]) -> None:
        self.version = version
        self.folders = folders
        self._memory = folders["memory"]

    def limit(self, memory_bytes: int, tasks: int) -> None:
        """Set its limits; swapped memory counts where the kernel can tell."""
        (self.folders["pids"] / "pids.max").write_text(str(tasks))
        if self.version == 2:
            (self._memory / "memory.max").write_text(str(memory_bytes))
            with contextlib.suppress(OSError):
                (self._memory / "memory.swap.max").write_text("0")
            return
        with contextlib.suppress(OSError):  # the larger one first, whatever the old ones are
            (self._memory / "memory.memsw.limit_in_bytes").write_text("-1")
        (self._memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
        with contextlib.suppress(OSError):
            (self._memory / "memory.memsw.limit_in_bytes").write_text(str(memory_bytes))

    def add(self, pid: int) -> None:
        """Move a process into it."""
        for path in set(self.folders.values()):
            (path / "cgroup.procs").write_text(str(pid))

    def start_peak(self) -> int:
        """Begin to measure peak memory anew; gives the bytes in use now."""
        if self.version == 2:
            return int((self._memory / "memory.current").read_text())
        (self._memory / "memory.max_usage_in_bytes").write_text("0")
        return int((self._memory / "memory.usage_in_bytes").read_text())

    def peak(self) -> int | None:
        """Peak memory since :meth:`start_peak`, bytes; None where that is not known."""
        if self.version == 2:
            return None
        return int((self._memory / "memory.max_usage_in_bytes").read_text())

    def out_of_memory(self) -> int:
        """How often the kernel has killed a process of it for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        for line in (self._memory / name).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0

    def remove(self, give_up_s: float = 3.0) -> bool:
        """Remove it, once its processes have ended; whether that was done."""
        end = time.monotonic() + give_up_s
        waiting = set(self.folders.values())
        while waiting:
            for path in tuple(waiting):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    continue
                waiting.discard(path)
            if waiting and time.monotonic() > end:
                return False
            if waiting:
                time.sleep(0.005)
        return True


def find_home(proc: Path = Path("/proc/self")) -> CgroupHome | None:
    """Where this process may make groups; None where it may not.

    Args:
        proc: the folder with ``cgroup`` and ``mountinfo`` of a process.
    """
    try:
        own = _own_groups((proc / "cgroup").read_text())
        mounts = _mounts((proc / "mountinfo").read_text())
    except OSError:
        return None
    for home in (_version_1(own, mounts), *_version_2(own, mounts)):
        if home is not None and _works(home):
            home.sweep()
            return home
    return None


def _own_groups(text: str) -> dict[str, str]:
    """The path of this process's group by controller; version 2 under the empty name."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Root and mount point of each controller's hierarchy; version 2 under the empty name."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(maxsplit=2)
        if kind == "cgroup2":
            found[""] = (fields[3], Path(fields[4]))
        elif kind == "cgroup":
            for controller in options.split(","):
                found[controller] = (fields[3], Path(fields[4]))
    return found


def _folder(controller: str, own: dict[str, str], mounts: dict[str, tuple[str, Path]]) -> Path:
    root, point = mounts[controller]
    path = own[controller]
    if root != "/" and path.startswith(root):
        path = path[len(root) :]
    return point / path.lstrip("/")


def _version_1(own: dict[str, str], mounts: dict[str, tuple[str, Path]]) -> CgroupHome | None:
    if not all(name in own and name in mounts for name in _NEEDED):
        return None
    return CgroupHome(1, tuple((name, _folder(name, own, mounts)) for name in _NEEDED))


def _version_2(own: dict[str, str], mounts: dict[str, tuple[str, Path]]) -> list[CgroupHome]:
    if "" not in own or "" not in mounts:
        return []
    folder = _folder("", own, mounts)
    return [
        CgroupHome(2, tuple((name, place) for name in _NEEDED))
        for place in (folder, folder.parent)
        if _gives_controllers(place)
    ]


def _gives_controllers(folder: Path) -> bool:
    """Whether groups below have the controllers, which they are given if need be."""
    control = folder / "cgroup.subtree_control"
    try:
        if not all(name in control.read_text().split() for name in _NEEDED):
            control.write_text(" ".join(f"+{name}" for name in _NEEDED))
    except OSError:
        return False
    return True


def _works(home: CgroupHome) -> bool:
    try:
        group = home.make()
    except OSError:
        return False
    try:
        group.limit(1 << 28, 16)
    except OSError:
        return False
    finally:
        group.remove(0.1)
    return True
