"""The folder that jobs may write to: its size, and emptying it whatever a job has made of it."""

from __future__ import annotations

import os
import time

__all__ = ["empty", "used_bytes"]

_MAX_ENTRIES = 20_000
_MAX_DEPTH = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def used_bytes(folder: str, stop_at: int) -> int:
    """Bytes on the disk of what is below a folder; counting ends at ``stop_at``.

    Each entry counts 4096 bytes at least, so that many empty files are found out too. So are more
    than 20,000 entries and folders more than 40 deep, which take long to count.
    """
    total, entries, waiting = 0, 0, [(folder, 0)]
    while waiting and total <= stop_at:
        path, depth = waiting.pop()
        try:
            with os.scandir(path) as found:
                for entry in found:
                    entries += 1
                    total += max(entry.stat(follow_symlinks=False).st_blocks * 512, 4096)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except OSError:
            continue
        if entries > _MAX_ENTRIES or depth > _MAX_DEPTH:
            return stop_at + 1
    return total


def empty(folder: str, give_up_s: float = 3600.0) -> bool:
    """Remove all that is in a folder; whether nothing is left after some time.

    Folders are entered one from the other, so that neither the depth nor the length of paths that
    a job has made matters. No process may be there that moves them meanwhile.
    """
    end = time.monotonic() + give_up_s
    here = os.open(folder, _FOLDER)
    above: list[tuple[str, list[str]]] = []  # the name of each folder and what waits beside it
    try:
        waiting, whole = _remove_files(here)
        while time.monotonic() < end:
            if waiting:
                name = waiting.pop()
                try:
                    os.chmod(name, 0o700, dir_fd=here)
                    inner = os.open(name, _FOLDER, dir_fd=here)
                except OSError:
                    whole = False
                    continue
                os.close(here)
                here = inner
                above.append((name, waiting))
                waiting, removed = _remove_files(here)
                whole = whole and removed
            elif above:
                inner, here = here, os.open("..", _FOLDER, dir_fd=here)
                os.close(inner)
                name, waiting = above.pop()
                try:
                    os.rmdir(name, dir_fd=here)
                except OSError:
                    whole = False
            else:
                return whole
        return False
    finally:
        os.close(here)


def _remove_files(folder: int) -> tuple[list[str], bool]:
    """Remove the files of a folder; gives the folders in it, and whether no file is left."""
    folders, whole = [], True
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
                continue
            try:
                os.unlink(entry.name, dir_fd=folder)
            except OSError:
                whole = False
    return folders, whole
