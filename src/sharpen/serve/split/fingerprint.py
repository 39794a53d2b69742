"""Whether two workers serve the same model: what their keys and values depend on.

Every byte of the weights counts, so that two trainings of one base differ however little was
changed. Files are hashed in pieces, which several threads take, and the hash of a large one is kept
in the user's cache beside its size and the time of its last change, so that it is read for it once.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import torch

from sharpen.core.files import cache_home
from sharpen.core.model_spec import ModelSpec
from sharpen.models.lora import read_adapter_config

__all__ = ["adapter_hash", "content_hash", "fingerprint"]

_WEIGHTS = ("*.safetensors", "*.gguf")
_PIECE_BYTES = 16 << 20
_KEPT_FROM_BYTES = 64 << 20


def fingerprint(
    path: Path, spec: ModelSpec, dtype: torch.dtype, adapter: Path | None = None
) -> str:
    """A hash of shape, type, and all bytes of the weight files.

    Args:
        path: model folder or ``.gguf`` file.
        spec: the model's shape.
        dtype: of keys and values.
        adapter: folder of an adapter that is folded in.

    Returns:
        32 hexadecimal digits.
    """
    made = blake2b(repr((spec, str(dtype))).encode(), digest_size=16)
    made.update(content_hash(path).encode())
    if adapter is not None:
        made.update(adapter_hash(adapter).encode())
    return made.hexdigest()


def adapter_hash(folder: str | Path) -> str:
    """A hash of an adapter's weights and of how they are applied; 32 hexadecimal digits.

    Raises:
        MissingFileError: it has no config.
        FileFormatError: the config is damaged.
    """
    text = f"{read_adapter_config(folder)} {content_hash(Path(folder))}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


def content_hash(path: Path) -> str:
    """A hash of a weight file, or of those of a folder, in the order of their names.

    Args:
        path: file or folder.

    Returns:
        32 hexadecimal digits; names and places do not count.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for kind in _WEIGHTS for file in path.glob(kind))
    made = blake2b(digest_size=16)
    for file in files:
        made.update(_file_hash(file))
    return made.hexdigest()


def _file_hash(file: Path) -> bytes:
    found = file.stat()
    if found.st_size < _KEPT_FROM_BYTES:
        return _computed(file, found.st_size)
    name = str(file.resolve())
    known = [name, found.st_size, found.st_mtime_ns, found.st_ino]
    kept = _cache_folder() / f"{blake2b(name.encode(), digest_size=16).hexdigest()}.json"
    try:
        *before, digest = json.loads(kept.read_text())
        if before == known:
            return bytes.fromhex(digest)
    except (OSError, ValueError, TypeError):
        pass  # not hashed yet, or by another version
    made = _computed(file, found.st_size)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps([*known, made.hex()]))
        temporary.replace(kept)
    except OSError:
        pass  # then it is computed again next time
    return made


def _computed(file: Path, size: int) -> bytes:
    """Hash of the hashes of a file's pieces."""

    def piece(start: int) -> bytes:
        with file.open("rb") as data:
            data.seek(start)
            return blake2b(data.read(_PIECE_BYTES), digest_size=16).digest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pieces = list(pool.map(piece, range(0, size, _PIECE_BYTES)))
    return blake2b(b"".join(pieces) + str(size).encode(), digest_size=16).digest()


def _cache_folder() -> Path:
    return cache_home() / "weights"
