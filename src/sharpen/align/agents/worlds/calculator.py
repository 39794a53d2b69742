"""Sums that are too long for the head: use the calculator, then answer.

The calculator takes one operation at a time, so a task needs two calls and an answer.
"""

from __future__ import annotations

import re
from typing import Any

from sharpen.align.agents.environment import TextWorld
from sharpen.align.agents.tools import Toolbox, read_call

__all__ = ["CalculatorTask", "calculate"]

_SUM = re.compile(r"\s*(-?\d{1,12})\s*([-+*])\s*(-?\d{1,12})\s*")


def calculate(expression: str) -> int:
    """One sum, difference or product of two whole numbers, such as '17 * 3'."""
    found = _SUM.fullmatch(str(expression))
    if found is None:
        raise ValueError("one operation of two whole numbers, such as 17 * 3")
    a, b = int(found[1]), int(found[3])
    return a + b if found[2] == "+" else a - b if found[2] == "-" else a * b


class CalculatorTask(TextWorld):
    """``a * b + c`` with numbers of two digits; the reward is 1 for the right answer."""

    def begin(self) -> tuple[str, str]:
        """Draw the numbers."""
        self.tools = Toolbox([calculate])
        self.a, self.b, self.c = (int(one) for one in self.np_random.integers(12, 99, 3))
        self.answer = self.a * self.b + self.c
        self.last: int | None = None
        goal = f"What is {self.a} * {self.b} + {self.c}? Call answer(number) when you know."
        return goal, f"Tools: {self.tools.describe()}"

    def possible(self) -> list[str]:
        """Calls with the numbers at hand, right and wrong ones."""
        found = [
            f"calculate('{self.a} * {self.b}')",
            f"calculate('{self.b} + {self.c}')",
            f"answer({self.a + self.b + self.c})",
        ]
        if self.last is not None:
            found += [f"calculate('{self.last} + {self.c}')", f"answer({self.last})"]
        return found

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Call a tool, or answer."""
        call = read_call(action)
        if call is not None and call[0] == "answer":
            right = call[1:] == ([self.answer], {})
            return "Right." if right else "Wrong.", float(right), True, {"success": right}
        said, good = self.tools.call(action)
        if good:
            self.last = int(said)
        return said, 0.0, False, {"violation": not good}
