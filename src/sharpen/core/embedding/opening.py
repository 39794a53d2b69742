"""Embedders by name: an asset, a folder, or a table of token vectors.

What reads a folder depends on its ``config.json``: the ``model_type`` names an entry point of the
group ``sharpen.embedders``, which is loaded when a model of its type is first opened. Without a
``config.json`` it is ``static``, a table.
"""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import read_json
from sharpen.core.errors import DependencyNotInstalled, FileFormatError, MissingFileError

__all__ = ["Embedder", "embedder_files", "open_embedder"]

_GROUP = "sharpen.embedders"
_TOKENIZERS = ("tokenizer.json", "../tokenizers/l2_supercat_tokenizer_config.json")
_EXTRAS = {"static": "data"}


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts, as models of sentence-transformers do."""

    def encode(self, texts: list[str], /) -> npt.NDArray[np.float32]:
        """[texts, width] vectors."""
        ...


def embedder_files(model: str) -> tuple[Path, Path]:
    """The weights and the tokenizer of an embedder.

    Args:
        model: an asset's name, a safetensors file, or a folder with ``model.safetensors``.

    Raises:
        MissingFileError: one of them is not there.
        AssetNotInstalled: the asset is not installed.
    """
    path = asset_path(model) if model in ASSETS else Path(model)
    weights = path / "model.safetensors" if path.is_dir() else path
    if not weights.is_file():
        known = ", ".join(a.name for a in ASSETS.values() if a.kind == "embedding")
        raise MissingFileError(f"there is no embedding {model}; a file, a folder, or: {known}.")
    for name in _TOKENIZERS:
        if (tokenizer := weights.parent / name).is_file():
            return weights, tokenizer
    raise MissingFileError(f"{weights} has no tokenizer.json beside it.")


def open_embedder(model: str) -> Embedder:
    """Open an embedder; the last two stay open.

    Args:
        model: as of :func:`embedder_files`.

    Raises:
        MissingFileError: files are not there.
        FileFormatError: they are damaged, or of a kind that nothing reads.
        DependencyNotInstalled: a package that reads them is missing.
    """
    weights, tokenizer = embedder_files(model)
    return _opened(weights, tokenizer, weights.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _opened(weights: Path, tokenizer: Path, changed: int) -> Embedder:
    kind, file = "static", weights.parent / "config.json"
    if file.is_file():
        config = read_json(file, "config of an embedder")
        kind = str(config.get("model_type", kind)) if isinstance(config, dict) else kind
    points = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    if kind not in points:
        raise FileFormatError(
            f"{file} is of the type '{kind}', which nothing reads; there are:"
            f" {', '.join(sorted(points))}."
        )
    try:
        load = points[kind].load()
    except ModuleNotFoundError as error:
        raise DependencyNotInstalled(
            f"embeddings of {weights.parent} need the package '{error.name}'. Install it:"
            f" pip install 'sharpen[{_EXTRAS.get(kind, 'serve')}]'"
        ) from error
    found: Embedder = load(weights, tokenizer)
    return found


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Vectors of length 1, in place; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(length > 0, length, 1)
    return vectors
