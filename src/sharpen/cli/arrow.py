"""PyArrow without pandas, for commands that are to start fast."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["start_arrow"]


class _NoPandas:
    """Says that there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


def start_arrow() -> None:
    """Let PyArrow start without pandas, which no command of this group needs.

    It imports pandas when it is given its first list, a third of the time in which a command
    starts; where it finds none, it does not look again.
    """
    sys.meta_path.insert(0, _NoPandas)
    try:
        import pyarrow

        pyarrow.array([0])
    except ModuleNotFoundError:
        return  # of pyarrow itself; who needs it says so
    finally:
        sys.meta_path.remove(_NoPandas)
