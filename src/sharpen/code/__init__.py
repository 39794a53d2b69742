"""Making programs faster: trustworthy measurement, metrics, and the loop that improves code.

Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.code.improver.config import ImproveConfig
    from sharpen.code.improver.improve import improve
    from sharpen.code.improver.problem import CodeProblem, code_problem
    from sharpen.code.improver.result import ImproveResult

__all__ = ["CodeProblem", "ImproveConfig", "ImproveResult", "code_problem", "improve"]

__getattr__ = exports(
    "sharpen.code",
    {
        "CodeProblem": "sharpen.code.improver.problem",
        "ImproveConfig": "sharpen.code.improver.config",
        "ImproveResult": "sharpen.code.improver.result",
        "code_problem": "sharpen.code.improver.problem",
        "improve": "sharpen.code.improver.improve",
    },
)
