"""The exception tree: every error a user can cause or meet, with the exit code the CLI returns.

::

    SharpenError                       exit 1: something failed on the way
    ├── UserError                      exit 2: what the user gave is wrong
    │   ├── ConfigError   (ValueError)         a key or value of a recipe, config or override
    │   │   └── SpaceError                     a search space, condition or forbidden clause
    │   ├── DataError     (ValueError)         an input row, text, label or data set
    │   ├── FileFormatError (ValueError)       a damaged or unsupported file
    │   ├── MissingFileError (FileNotFoundError) a path that does not exist
    │   └── BusyError     (RuntimeError)       a port, run directory or store in use
    ├── NotInstalledError (ImportError)        exit 3: a missing asset or dependency
    │   ├── AssetNotInstalled
    │   └── DependencyNotInstalled
    ├── TrainingError     (RuntimeError)       NaN losses, diverged training
    ├── StorageError      (OSError)            disk full, no permission to write
    ├── OutOfMemoryError  (MemoryError)        more memory planned or asked for than there is
    ├── ExecutionError    (RuntimeError)       a trial, stage or child process failed
    └── Interrupted                            exit 130: stopped by the user, resumable
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "AssetNotInstalled",
    "BusyError",
    "ConfigError",
    "DataError",
    "DependencyNotInstalled",
    "ExecutionError",
    "FileFormatError",
    "Interrupted",
    "KilledError",
    "MissingFileError",
    "NotInstalledError",
    "OutOfMemoryError",
    "SharpenError",
    "SpaceError",
    "StorageError",
    "TrainingError",
    "UserError",
    "did_you_mean",
    "storage_errors",
]


class SharpenError(Exception):
    """Base of every error Sharpen raises on purpose."""

    exit_code = 1


class UserError(SharpenError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A key or value of a recipe, a config or an override is wrong."""


class SpaceError(ConfigError):
    """A search space, a condition or a forbidden clause is wrong."""


class DataError(UserError, ValueError):
    """An input row, text, label or data set cannot be used."""


class FileFormatError(UserError, ValueError):
    """A file is damaged, tampered with, or of an unsupported format."""


class MissingFileError(UserError, FileNotFoundError):
    """A path does not exist."""


class BusyError(UserError, RuntimeError):
    """A port, run directory or store is in use by another process."""


class NotInstalledError(SharpenError, ImportError):
    """An asset or a dependency is missing; the message has the command that installs it."""

    exit_code = 3


class AssetNotInstalled(NotInstalledError):
    """A model or corpus that ships in a package is not installed."""


class DependencyNotInstalled(NotInstalledError):
    """An optional dependency is not installed."""

    @classmethod
    def for_feature(cls, feature: str, extra: str) -> DependencyNotInstalled:
        """The error for ``feature``, which needs the extra ``extra``."""
        return cls(
            f"{feature} needs the extra '{extra}'. Install it: pip install 'sharpen[{extra}]'"
        )


class TrainingError(SharpenError, RuntimeError):
    """Training cannot go on: NaN or infinite losses, divergence."""


class StorageError(SharpenError, OSError):
    """Writing failed: disk full, no permission, read-only file system."""


class OutOfMemoryError(SharpenError, MemoryError):
    """More memory is needed than the device has."""


class ExecutionError(SharpenError, RuntimeError):
    """A trial, a stage or a child process failed."""


class KilledError(ExecutionError):
    """A process was killed from outside, so that what it did may be done again."""


class Interrupted(SharpenError):
    """The user stopped the work; state is saved and the same command resumes it."""

    exit_code = 130


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest allowed word, or ``""`` when none is near."""
    near = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


@contextmanager
def storage_errors(path: Path, *, doing: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` met while writing ``path`` into a :class:`StorageError` with a remedy."""
    try:
        yield
    except SharpenError:
        raise
    except OSError as error:
        remedy = {
            errno.ENOSPC: "The disk is full: free space and run the command again; it resumes.",
            errno.EDQUOT: "Your disk quota is used up: free space and run the same command again.",
            errno.EACCES: "No permission: choose another folder with --output.",
            errno.EPERM: "No permission: choose another folder with --output.",
            errno.EROFS: "The file system is read-only: choose another folder with --output.",
        }.get(error.errno or 0, "Check the folder and run the same command again.")
        raise StorageError(f"cannot {doing} {path}: {error.strerror or error}. {remedy}") from error
