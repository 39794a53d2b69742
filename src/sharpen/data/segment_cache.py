"""What segments of recipes came to, kept under their addresses, within a size.

::

    CACHE/<address>/        the parts of a segment
          <address>.lock    held by the run that uses it
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path

from sharpen.core.errors import BusyError, ConfigError
from sharpen.core.files import FileLock

__all__ = ["SegmentCache"]


class SegmentCache:
    """Folders by address.

    Args:
        root: of the cache.
        limit: bytes; what was not used for longest goes when a run is done.
        locks: held until the run ends.

    Raises:
        ConfigError: the limit is negative, or the root is a file.
    """

    def __init__(self, root: Path, limit: int, locks: ExitStack) -> None:
        if limit < 0:
            raise ConfigError(f"cache_bytes={limit} must not be negative.")
        if root.is_file():
            raise ConfigError(f"{root} is a file; the cache is a folder.")
        self._root, self._limit, self._locks = root, limit, locks

    def folder(self, address: str) -> Path:
        """The folder of an address, for this run alone.

        Raises:
            BusyError: another run uses it.
        """
        lock = FileLock(self._root / f"{address}.lock", f"the cached {self._root / address}")
        self._locks.enter_context(lock)
        folder = self._root / address
        with suppress(FileNotFoundError):
            os.utime(folder)
        return folder

    def shrink(self) -> None:
        """Remove what was not used for longest until the rest is within the limit."""
        sizes = {}
        for folder in self._root.iterdir():
            if folder.is_dir():
                files = [path.stat().st_size for path in folder.iterdir()]
                sizes[folder] = (folder.stat().st_mtime_ns, sum(files))
        total = sum(size for _, size in sizes.values())
        for folder in sorted(sizes, key=lambda one: sizes[one]):
            if total <= self._limit:
                return
            if self._remove(folder):
                total -= sizes[folder][1]

    def _remove(self, folder: Path) -> bool:
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire()
        except BusyError:  # of another run, or of this one until it ends
            return False
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
        return not folder.exists()
