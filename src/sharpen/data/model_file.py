"""Small models as one safetensors file: arrays, and what they are in the header's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DependencyNotInstalled, FileFormatError, MissingFileError
from sharpen.core.files import atomic_write_bytes

__all__ = ["load_arrays", "reading", "save_arrays"]

_VERSION = 1


def save_arrays(
    path: str | Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]
) -> None:
    """Write a model.

    Args:
        path: the file.
        kind: of model.
        arrays: by name.
        about: plain data: settings, and what it was trained on.

    Raises:
        StorageError: the disk is full, or may not be written.
        DependencyNotInstalled: safetensors is missing.
    """
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(about, ensure_ascii=False, allow_nan=False)
    metadata = {"format_version": str(_VERSION), "kind": kind, "about": text}
    atomic_write_bytes(Path(path), _safetensors().save(held, metadata))


def load_arrays(path: str | Path, kind: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays of a model, and what is said about them.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: it is damaged, or a model of another kind.
        DependencyNotInstalled: safetensors is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no such model: {path}")
    data = path.read_bytes()
    try:
        arrays = _safetensors().load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        found, version = metadata.get("kind"), metadata.get("format_version")
        about = json.loads(metadata["about"]) if found == kind else {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path} is no safetensors file, or damaged: {error}.") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise FileFormatError(f"{path} is no safetensors file, or damaged: {error}.") from error
    if found != kind or version != str(_VERSION):
        raise FileFormatError(
            f"{path} holds {found or 'something else'} of format {version}, not {kind} of format "
            f"{_VERSION}."
        )
    return arrays, about


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Where a model is made of what was in its file.

    Raises:
        FileFormatError: something is missing there, or of another type.
    """
    try:
        yield
    except FileFormatError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is damaged: {error!r}.") from error


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise DependencyNotInstalled.for_feature("a model's file", "data") from None
    return safetensors.numpy
