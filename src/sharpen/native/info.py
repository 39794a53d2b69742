"""What this machine can run: the instruction set and the compiler.

Kernels are compiled on the machine that runs them, for the best variant it has. ``SHARPEN_NATIVE``
chooses a lower one, or none::

    0        no native code: the torch or NumPy twin of every kernel
    scalar   what every processor of the architecture has
    avx2     x86-64-v3: AVX2, FMA
    avx512   x86-64-v4: AVX-512 F, BW, CD, DQ, VL
"""

from __future__ import annotations

import os
import platform
import shutil
from functools import lru_cache
from pathlib import Path

from sharpen.core.errors import ConfigError

__all__ = ["VARIANTS", "compiler", "cpu_flags", "is_amd_with_avx512", "supported", "variant"]

VARIANTS = ("scalar", "avx2", "avx512")
_NEEDS = {
    "scalar": frozenset[str](),
    "avx2": frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}),
    "avx512": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction set extensions of the first processor, by Linux's names; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    found = (value.split() for key, _, value in lines if key.strip() in ("flags", "Features"))
    return frozenset(next(found, ()))


@lru_cache(maxsize=1)
def is_amd_with_avx512() -> bool:
    """Whether it is a processor on which oneMKL leaves the widest vectors unused."""
    if "avx512f" not in cpu_flags():
        return False
    return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()


def supported() -> list[str]:
    """The variants that run here, the best last."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ["scalar"]
    names: list[str] = []
    for name in VARIANTS:  # each stands on the one before it
        if not _NEEDS[name] <= cpu_flags():
            break
        names.append(name)
    return names


def variant() -> str | None:
    """The variant to use: the best that runs here, unless ``SHARPEN_NATIVE`` says otherwise.

    Returns:
        A name of :data:`VARIANTS`, or None for no native code.

    Raises:
        ConfigError: the variable holds an unknown name, or one that this processor cannot run.
    """
    asked = os.environ.get("SHARPEN_NATIVE", "")
    names = supported()
    if asked == "0":
        return None
    if asked in ("", "1"):
        return names[-1]
    if asked not in names:
        raise ConfigError(
            f"SHARPEN_NATIVE={asked}: this machine has {', '.join(names)}; 0 turns native code off"
        )
    return asked


def compiler() -> str | None:
    """Path of the C++ compiler: ``$CXX``, else g++, c++ or clang++; None where there is none."""
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("g++", "c++", "clang++"):
        if path := shutil.which(name):
            return str(Path(path).resolve())
    return None
