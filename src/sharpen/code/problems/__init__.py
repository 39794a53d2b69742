"""Problems for programs that write programs: what is asked, references, inputs by size, tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.code.problems.base import Problem
    from sharpen.code.problems.load import SETS, ProblemSet, load_problems

_MODULES = {"base": ["Problem"], "load": ["SETS", "ProblemSet", "load_problems"]}

__all__ = ["SETS", "Problem", "ProblemSet", "load_problems"]

__getattr__ = exports(
    __name__,
    {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names},
)
