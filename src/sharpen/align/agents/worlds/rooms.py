"""Four rooms, a key and a locked door: find the key, open the door, go in.

The rooms lie two by two. A seed draws which is the goal, where the agent begins and where the key
lies. Doors of the goal room are locked until they are opened with the key from a room beside it.
"""

from __future__ import annotations

from typing import Any

from sharpen.align.agents.environment import TextWorld

__all__ = ["Rooms"]

_NAMES = ("kitchen", "library", "garden", "cellar")
_PLACES = ((0, 0), (1, 0), (0, 1), (1, 1))
_WAYS = {"north": (0, -1), "south": (0, 1), "west": (-1, 0), "east": (1, 0)}


class Rooms(TextWorld):
    """The reward is 1 in the goal room, else 0; see the module."""

    def __init__(self, *, max_steps: int = 24) -> None:
        super().__init__(max_steps=max_steps)

    def begin(self) -> tuple[str, str]:
        """Draw the rooms."""
        draw = self.np_random.permutation(4)
        self.goal, self.at = int(draw[0]), int(draw[1])
        self.key: int | None = int(draw[1 + self.np_random.integers(3)])
        self.has_key = self.is_open = False
        return f"Go to the {_NAMES[self.goal]}.", self._sight()

    def _beside(self, way: str) -> int | None:
        x, y = _PLACES[self.at]
        dx, dy = _WAYS[way]
        place = (x + dx, y + dy)
        return _PLACES.index(place) if place in _PLACES else None

    def _sight(self) -> str:
        exits = []
        for way in _WAYS:
            room = self._beside(way)
            if room is not None:
                is_locked = room == self.goal and not self.is_open
                exits.append(f"{way} (locked)" if is_locked else way)
        key = "There is a key. " if self.key == self.at else ""
        hands = "You hold a key." if self.has_key else "You hold nothing."
        return f"You are in the {_NAMES[self.at]}. Exits: {', '.join(exits)}. {key}{hands}"

    def possible(self) -> list[str]:
        """All that the world understands; not all of it helps."""
        return [*(f"go {way}" for way in _WAYS), "take key", "open door"]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Go, take, or open."""
        verb, _, rest = action.partition(" ")
        if verb == "go" and rest in _WAYS:
            room = self._beside(rest)
            if room is not None and (room != self.goal or self.is_open):
                self.at = room
        elif action == "take key" and self.key == self.at:
            self.key, self.has_key = None, True
        elif action == "open door" and self.has_key:
            self.is_open = self.is_open or any(self._beside(w) == self.goal for w in _WAYS)
        done = self.at == self.goal
        return self._sight(), float(done), done, {"success": done}
