"""What an evaluation has found so far, so that one that was ended goes on."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import IO, Any

from sharpen.core.errors import storage_errors

__all__ = ["Journal"]


class Journal:
    """Lines of JSON, one a problem; what was found under another key is not asked for.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.found: dict[str, Any] = {}
        self._file: IO[str] | None = None
        self._lock = threading.Lock()
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                    self.found[row["key"]] = row["found"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # the line that was being written

    def get(self, key: str) -> Any:
        """What was found under a key; None where nothing was."""
        return self.found.get(key)

    def add(self, key: str, found: Any) -> None:
        """Keep what was found.

        Raises:
            StorageError: it cannot be written.
        """
        if self.path is None:
            return
        with self._lock, storage_errors(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("a", encoding="utf-8")
                self._file.write("\n")  # ends a line that was cut off
            self._file.write(json.dumps({"key": key, "found": found}) + "\n")
            self._file.flush()

    def close(self, *, done: bool) -> None:
        """Stop writing; what is done is not needed any more."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if done and self.path is not None:
            self.path.unlink(missing_ok=True)
