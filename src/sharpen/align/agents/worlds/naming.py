"""Worlds by name or place."""

from __future__ import annotations

from sharpen.align.agents.environment import MakeWorld
from sharpen.align.places import at_place
from sharpen.core.errors import ConfigError

__all__ = ["find_world"]

_BUILT_IN = {
    "calculator": "sharpen.align.agents.worlds.calculator:CalculatorTask",
    "retrieval": "sharpen.align.agents.worlds.retrieval:RetrievalTask",
    "rooms": "sharpen.align.agents.worlds.rooms:Rooms",
}


def find_world(ref: str) -> MakeWorld:
    """What makes a world.

    Args:
        ref: ``rooms``, ``calculator``, ``retrieval``, ``module:Class`` or ``path.py:Class``.

    Raises:
        ConfigError: there is none, or it cannot be called.
        MissingFileError: there is no such file.
    """
    found = at_place(_BUILT_IN.get(ref, ref), what="world", known=_BUILT_IN)
    if not callable(found):
        raise ConfigError(f"the world '{ref}' is {found!r:.60}, which makes none.")
    make: MakeWorld = found
    return make
