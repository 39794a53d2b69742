"""A world of two turns, for tests of agents that learn in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharpen.align.agents import TextWorld


class Letters(TextWorld):
    """Two turns; each is worth the share of its letters that are among those asked for."""

    def begin(self) -> tuple[str, str]:
        return "Say low letters.", "Go on."

    def possible(self) -> Sequence[str]:
        return ["a"]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        good = sum("a" <= one <= "p" for one in action)
        share = good / max(1, len(action))
        return "Again.", share / 2, self.taken >= 2, {"success": share > 0.5}


class Deaf(Letters):
    """Nothing that is done earns anything."""

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        return "Again.", 0.0, self.taken >= 2, {"success": False}
