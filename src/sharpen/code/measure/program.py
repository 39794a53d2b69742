"""A function of a source, as it is handed to other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A function in a source, which is trusted."""

    source: str
    entry: str
    """The function's name, or a dotted path such as ``Class.method``."""

    file: str = "<program>"
    """How tracebacks call it."""

    module: str = "program"
    """Its module's name; with dots where it is part of a package."""

    path: tuple[str, ...] = ()
    """Folders that it imports from."""

    @classmethod
    def from_file(cls, file: str | Path, entry: str, *, root: str | Path | None = None) -> Program:
        """A function of a file.

        Args:
            file: the source.
            entry: the function.
            root: the folder that its package lies in; the file's own without it.
        """
        path = Path(file).resolve()
        folder = path.parent if root is None else Path(root).resolve()
        parts = path.relative_to(folder).with_suffix("").parts
        return cls(
            source=path.read_text(encoding="utf-8"),
            entry=entry,
            file=str(path),
            module=".".join(parts),
            path=(str(folder),),
        )
