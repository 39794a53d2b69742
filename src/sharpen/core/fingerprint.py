"""What a result depends on beside the recipe: the bytes of a model, the versions of what ran."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from sharpen._version import __version__
from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import digest
from sharpen.core.errors import MissingFileError
from sharpen.core.files import sha256_file

__all__ = ["environment", "file_digests", "model_fingerprint"]


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256_file(p) for p in files}


def model_fingerprint(reference: str) -> str:
    """Digest of a model's bytes: an asset's pinned sha256, or of every file of a folder.

    Args:
        reference: an asset's name, a folder in Hugging Face layout, or a ``.gguf`` file.

    Raises:
        MissingFileError: a file cannot be read.
    """
    if reference in ASSETS and ASSETS[reference].sha256 is not None:
        return str(ASSETS[reference].sha256)
    path = asset_path(reference) if reference in ASSETS else Path(reference)
    try:
        return sha256_file(path) if path.is_file() else digest(file_digests(path))
    except OSError as error:
        raise MissingFileError(f"cannot read {error.filename}: {error.strerror}.") from None


def environment() -> dict[str, Any]:
    """Versions, processor, threads."""
    versions: dict[str, str] = {}
    for name in ("torch", "numpy", "tokenizers", "safetensors", "gguf", "pyarrow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "sharpen": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "packages": versions,
    }
