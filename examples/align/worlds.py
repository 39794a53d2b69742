"""Two small worlds of one's own: how an episode begins, what may be done, what comes of it."""

from collections.abc import Sequence
from typing import Any

from sharpen.align.agents import TextWorld


class Letters(TextWorld):
    """Two turns of writing; each is worth half its share of letters from a to m."""

    def begin(self) -> tuple[str, str]:
        return "Write early letters.", "Go on."

    def possible(self) -> Sequence[str]:
        return ["abc"]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        share = sum("a" <= one <= "m" for one in action) / max(1, len(action))
        return "Again.", share / 2, self.taken >= 2, {"success": share > 0.5}


class Doors(TextWorld):
    """Behind one of three doors there is a garden, and a note on the table says behind which."""

    colors = ("red", "green", "blue")

    def begin(self) -> tuple[str, str]:
        self.right = self.colors[self.np_random.integers(3)]
        return "Get into the garden.", "A room with three doors, red, green and blue, and a table."

    def possible(self) -> Sequence[str]:
        return [f"open {color}" for color in self.colors] + ["read the note"]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        if action == "read the note":
            return f"The note says {self.right}.", 0.0, self.taken > 2, {"success": False}
        done = action == f"open {self.right}"
        seen = "The garden." if done else "A wall."
        return seen, float(done), True, {"success": done}
