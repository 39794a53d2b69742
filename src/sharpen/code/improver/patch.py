"""The change as a patch that ``git apply`` takes, and writing it."""

from __future__ import annotations

import difflib
from pathlib import Path

from sharpen.code.improver.target import Target
from sharpen.core.errors import BusyError, MissingFileError
from sharpen.core.files import atomic_write_bytes

__all__ = ["apply_text", "path_in_patch", "unified", "write_text"]

_NO_END = "\\ No newline at end of file\n"


def path_in_patch(file: Path) -> str:
    """The file as a patch names it: from the top of its git repository, else from here."""
    for folder in file.parents:
        if (folder / ".git").exists():
            return file.relative_to(folder).as_posix()
    here = Path.cwd()
    return (file.relative_to(here) if file.is_relative_to(here) else Path(file.name)).as_posix()


def unified(target: Target, text: str) -> str:
    """The difference of two texts, with three lines around it; empty where there is none."""
    name = path_in_patch(target.file)
    old, new = (one.splitlines(keepends=True) for one in (target.text, text))
    lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", n=3)
    return "".join(line if line.endswith("\n") else f"{line}\n{_NO_END}" for line in lines)


def apply_text(target: Target, text: str) -> None:
    """Write a text to the target's file, which must be as it was read.

    Raises:
        BusyError: the file has changed since.
        MissingFileError: it is gone.
        StorageError: it cannot be written.
    """
    try:
        now = target.file.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{target.file} is gone.") from None
    if now != target.text.encode("utf-8"):
        raise BusyError(
            f"{target.file} has changed since it was read: nothing is written. Run it again."
        )
    write_text(target.file, text)


def write_text(file: Path, text: str) -> None:
    """Write a file that is there; its rights stay.

    Raises:
        StorageError: it cannot be written.
    """
    rights = file.stat().st_mode
    atomic_write_bytes(file, text.encode("utf-8"))
    file.chmod(rights)
