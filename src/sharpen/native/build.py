"""Compiling the kernels: on first use, with the system's compiler, once per machine.

``<subject>.cpp`` becomes ``$XDG_CACHE_HOME/sharpen/native/<key>/<subject>.so``. The key is a hash
of the source, the folder's headers, the flags, the compiler and the processor's instruction sets,
so that a changed one makes a new library and a home folder shared by different machines is safe.
Two processes do not compile the same thing: the second waits for the first's lock. A library
appears whole or not at all.

Without a compiler, or where compiling fails, one warning says so and the callers' twins in torch or
NumPy do the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

from sharpen.core.errors import ExecutionError, SharpenError
from sharpen.core.files import FileLock, cache_home
from sharpen.native.info import compiler, cpu_flags, variant

__all__ = ["SUBJECTS", "build", "cache_folder", "function", "load"]

_HERE = Path(__file__).parent
SUBJECTS = tuple(sorted(path.stem for path in _HERE.glob("*.cpp")))
_FLAGS = (
    *(
        "-std=c++17",
        "-O3",
        "-fPIC",
        "-shared",
        "-fopenmp",
        "-Wall",
        "-Wextra",
        "-Werror=return-type",
    ),
    # Lets loops with sqrt, rounding and conditions become vector code. Rounding, infinities and NaN
    # keep their meaning: no -ffast-math, which also changes the whole process's denormals.
    *("-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
)
_MACHINE = {
    "scalar": (),
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}
# Bits of the results are those of the twins, which contract no multiplication with an addition.
_OWN = dict.fromkeys(("adafactor", "lowrank", "optim", "schedule_free"), ("-ffp-contract=off",))
_COMPILE_S = 120

_lock = threading.Lock()
_loaded: dict[tuple[str, str], ctypes.CDLL | None] = {}


def load(subject: str) -> ctypes.CDLL | None:
    """The library of a subject, compiled if need be; None where there is to be no native code.

    Args:
        subject: name of a ``.cpp`` file of this folder.

    Raises:
        ConfigError: ``SHARPEN_NATIVE`` holds an unknown or impossible value.
    """
    name = variant()
    if name is None:
        return None
    with _lock:
        key = (subject, name)
        if key not in _loaded:
            try:
                _loaded[key] = ctypes.CDLL(str(build(subject, name)))
            except (SharpenError, OSError) as error:
                warnings.warn(
                    f"native kernels for {subject} are not available, torch does the work: {error} "
                    "SHARPEN_NATIVE=0 silences this.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                _loaded[key] = None
        return _loaded[key]


def function(library: ctypes.CDLL, name: str, *types: type) -> Any:
    """A library's function that takes ``types`` and returns nothing."""
    found = library[name]
    found.argtypes, found.restype = types, None
    return found


def cache_folder() -> Path:
    """Where compiled libraries lie."""
    return cache_home() / "native"


def build(subject: str, name: str) -> Path:
    """Compile a subject for a variant, unless that was done before; returns the library.

    Raises:
        ExecutionError: there is no compiler, or it fails.
        StorageError: the cache cannot be written.
    """
    source = _HERE / f"{subject}.cpp"
    program = compiler()
    if program is None:
        raise ExecutionError("no C++ compiler was found; install g++ or set CXX.")
    flags = [*_FLAGS, *_MACHINE[name], *_OWN.get(subject, ())]
    stamp = Path(program).stat()
    described = [program, str(stamp.st_size), str(stamp.st_mtime_ns), *flags, *sorted(cpu_flags())]
    text = b"\0".join(path.read_bytes() for path in (source, *sorted(_HERE.glob("*.h"))))
    key = hashlib.sha256(text + "\0".join(described).encode()).hexdigest()[:32]
    library = cache_folder() / key / f"{subject}.so"
    if library.is_file():
        return library
    lock = FileLock(library.parent / "lock", f"the compilation of {source.name}")
    lock.acquire(timeout_s=_COMPILE_S)
    try:
        if not library.is_file():
            _compile(program, flags, source, library)
    finally:
        lock.release()
    return library


def _compile(program: str, flags: list[str], source: Path, library: Path) -> None:
    for left in library.parent.glob("tmp*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="tmp", dir=library.parent) as folder:
        made = Path(folder) / library.name
        command = [program, *flags, str(source), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExecutionError(f"{program} could not compile {source.name}: {error}.") from error
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()[:5]
            raise ExecutionError(f"{program} could not compile {source.name}:\n" + "\n".join(lines))
        made.replace(library)
