"""The interpreter of a sandbox: which one, what of it is read, and how it starts our code.

It is the base interpreter of this one, with flags that keep the folder it starts in, the user's
site folder and, unless packages are asked for, ``site-packages`` out. Not ``-I``: that would also
ignore ``PYTHONHASHSEED``, and the environment holds nothing that needs to be ignored.

Our own modules are not mounted. They are compiled here and go in through a pipe, so that a sandbox
needs no file of a project, this one's included.
"""

from __future__ import annotations

import marshal
import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["ENVIRONMENT", "Interpreter", "boot_bytes", "boot_words", "interpreter"]

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
}
"""All variables that a sandbox has."""

_INSIDE = Path(__file__).parent / "inside"
_PACKAGE = "sharpen.core.sandbox.inside"
# In the order in which they need each other.
_MODULES = (
    *("codec", "channel", "linux", "landlock", "seccomp", "processes", "scratch"),
    *("timed", "program", "calls", "keeper", "supervisor"),
)

_BOOT = """
import marshal, os, sys, types
def read(count):
    found = b""
    while len(found) < count:
        part = os.read(0, count - len(found))
        if not part:
            os._exit(1)
        found += part
    return found
packages, modules, config = marshal.loads(read(int.from_bytes(read(8), "little")))
for name in packages:
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
for name, code in modules:
    module = sys.modules[name] = types.ModuleType(name)
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, module)
    exec(code, module.__dict__)
sys.modules[modules[-1][0]].main(config)
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python to run in a sandbox."""

    executable: str
    """The base interpreter, without links on the way."""

    read: tuple[str, ...]
    """Folders that it reads, without those of the system."""

    sys_path: tuple[str, ...]
    """Folders of packages."""

    def moved(self, places: Mapping[str, str]) -> Interpreter:
        """The same with its folders at other places.

        Args:
            places: where each folder of :attr:`read` is.
        """

        def new(path: str) -> str:
            for old, place in places.items():
                if Path(path).is_relative_to(old):
                    return str(place / Path(path).relative_to(old))
            return path

        return Interpreter(
            new(self.executable), tuple(map(new, self.read)), tuple(map(new, self.sys_path))
        )

    def unreadable_below(self, roots: tuple[str, ...]) -> str | None:
        """A folder on the way to its modules that only its owner may enter; None without one.

        Args:
            roots: where the way begins: the folder itself where it is mounted alone.
        """
        for path in map(Path, self.read):
            for one in (path, *path.parents):
                if not one.stat().st_mode & 0o001:
                    return str(one)
                if str(one) in roots:
                    break
        return None


def interpreter(*, with_packages: bool) -> Interpreter:
    """The interpreter of sandboxes.

    Args:
        with_packages: whether installed packages are read as well.
    """
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    variables = sysconfig.get_paths(
        vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    )
    read = [os.path.realpath(p) for p in (sys.base_prefix, sys.base_exec_prefix)]
    read += [os.path.realpath(variables[name]) for name in ("stdlib", "platstdlib")]
    found: list[str] = []
    if with_packages:
        found = [os.path.realpath(p) for p in _package_folders()]
    return Interpreter(executable, _without_nested([*read, *found]), tuple(found))


def _package_folders() -> list[str]:
    """Folders that packages were installed to, as this process imports them."""
    wanted = {*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if site.ENABLE_USER_SITE:
        wanted.add(site.getusersitepackages())
    return [p for p in sys.path if p in wanted and Path(p).is_dir()]


def _without_nested(folders: list[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for folder in sorted(set(folders), key=len):
        if not any(Path(folder).is_relative_to(one) for one in kept):
            kept.append(folder)
    return tuple(kept)


def boot_words(executable: str) -> list[str]:
    """The command that waits for :func:`boot_bytes` on its standard input."""
    return [executable, "-P", "-s", "-S", "-B", "-c", _BOOT]


@cache
def _code() -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    parts = _PACKAGE.split(".")
    packages = tuple(".".join(parts[: i + 1]) for i in range(len(parts)))
    modules = []
    for name in _MODULES:
        source = (_INSIDE / f"{name}.py").read_text(encoding="utf-8")
        full = f"{_PACKAGE}.{name}"
        modules.append((full, compile(source, f"<{full}>", "exec", dont_inherit=True)))
    return packages, tuple(modules)


def boot_bytes(config: dict[str, Any]) -> bytes:
    """Our modules and the configuration of a supervisor, as the waiting interpreter takes them."""
    packages, modules = _code()
    payload = marshal.dumps((packages, modules, config))
    return len(payload).to_bytes(8, "little") + payload
