"""A model that may choose among four programs by one letter, rewarded as programs are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.align.rewards.code import CodeReward

PROGRAMS = {
    "r": "def total(n):\n    s = 0\n    for i in range(n):\n        s += i\n    return s\n",
    "s": "def total(n):\n    return n * (n - 1) // 2\n",
    "t": "def total(n):\n    return n\n",
    "l": "def total(n):\n    return 1 // 0\n",
}
"""Slow and right, fast and right, fast and wrong, and one that raises."""

TASK = {"entry": "total", "inputs": [[200], [201]], "reference": PROGRAMS["r"]}


@dataclass(frozen=True)
class Templates:
    code: CodeReward = field(default_factory=lambda: CodeReward(clock="opcodes"), init=False)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], meta: Sequence[Any]
    ) -> list[float | None]:
        programs = [PROGRAMS.get(text.strip(), "?") for text in completions]
        return self.code(prompts, programs, [TASK] * len(programs))

    def cache_key(self, prompt: Any, completion: str, meta: Mapping[str, Any]) -> str:
        return completion.strip()

    def close(self) -> None:
        self.code.close()
