"""Whether two workers serve the same model: what their keys and values depend on."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import torch

from sharpen.core.model_spec import ModelSpec

__all__ = ["fingerprint"]

_WEIGHTS = ("*.safetensors", "*.gguf")
_SAMPLES = 64
_SAMPLE_BYTES = 4096


def fingerprint(
    path: Path, spec: ModelSpec, dtype: torch.dtype, adapter: Path | None = None
) -> str:
    """A hash of shape, type, and the weight files: their sizes, heads, and samples of them.

    Args:
        path: model folder or ``.gguf`` file.
        spec: the model's shape.
        dtype: of keys and values.
        adapter: folder of an adapter that is folded in.

    Returns:
        32 hexadecimal digits. Samples are 4 KiB each at 64 even places, so that it takes no time;
        two trainings of one model differ in all of them.
    """
    made = blake2b(repr((spec, str(dtype))).encode(), digest_size=16)
    for folder in (path, adapter):
        if folder is None:
            continue
        files = [folder]
        if folder.is_dir():
            files = sorted(file for kind in _WEIGHTS for file in folder.glob(kind))
        for file in files:
            size = file.stat().st_size
            made.update(f"{file.name} {size}".encode())
            with file.open("rb") as data:
                made.update(data.read(1 << 16))
                for i in range(_SAMPLES):
                    data.seek(i * size // _SAMPLES)
                    made.update(data.read(_SAMPLE_BYTES))
    return made.hexdigest()
