"""Three small worlds that need no network: rooms, a calculator, a collection of sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.align.agents.worlds.calculator import CalculatorTask
    from sharpen.align.agents.worlds.naming import find_world
    from sharpen.align.agents.worlds.retrieval import RetrievalTask
    from sharpen.align.agents.worlds.rooms import Rooms

_MODULES = {
    "calculator": "CalculatorTask",
    "naming": "find_world",
    "retrieval": "RetrievalTask",
    "rooms": "Rooms",
}

__all__ = ["CalculatorTask", "RetrievalTask", "Rooms", "find_world"]

__getattr__ = exports(__name__, {name: f"{__name__}.{module}" for module, name in _MODULES.items()})
