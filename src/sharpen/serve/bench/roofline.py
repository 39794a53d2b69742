"""What memory allows: bandwidth, and the bytes that one token makes the engine read."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sharpen.core.huge_pages import collapse
from sharpen.native.build import function, load

__all__ = ["measure_bandwidth", "token_bytes"]

_BYTES, _DEVICE_BYTES = 1 << 29, 1 << 32


def measure_bandwidth(threads: int, device: str = "cpu") -> float:
    """Bytes a second of reading; the best of seven.

    On the CPU 512 MiB in huge pages are read. On a CUDA device 4 GiB are summed or copied, read and
    written, whichever moves more.

    Args:
        threads: that read, on the CPU.
        device: whose memory is read.
    """
    if torch.device(device).type == "cuda":
        return _device_bandwidth(device)
    data = torch.ones(_BYTES // 8, dtype=torch.int64)
    collapse([(data.data_ptr(), data.nbytes)])
    read = _reader(data, threads)
    best = float("inf")
    for _ in range(7):
        begin = time.perf_counter()
        read()
        best = min(best, time.perf_counter() - begin)
    return _BYTES / best


def _device_bandwidth(device: str) -> float:
    data = torch.ones(_DEVICE_BYTES // 4, device=device)
    half = data.numel() // 2
    best = float("inf")
    ways: list[Callable[[], object]] = [data.sum, lambda: data[:half].copy_(data[half:])]
    for run in ways:
        for _ in range(7):
            torch.cuda.synchronize(device)
            begin = time.perf_counter()
            run()
            torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - begin)
    return _DEVICE_BYTES / best


def _reader(data: torch.Tensor, threads: int) -> Callable[[], object]:
    """Reads all of it: native code in two streams a thread, or torch."""
    library = load("memory")
    if library is None:
        return data.sum
    pointer, total = ctypes.c_void_p, ctypes.c_int64()
    native = function(library, "read_all", pointer, ctypes.c_int64, pointer, ctypes.c_int)
    return lambda: native(data.data_ptr(), data.numel(), ctypes.addressof(total), threads)


def token_bytes(model: str | Path, dtype_bytes: int = 2) -> int:
    """Bytes of weights that a token reads: all but an embedding that is no head.

    Args:
        model: a folder or a ``.gguf`` file.
        dtype_bytes: of weights that are not quantized, as the engine computes with them.
    """
    path = Path(model)
    if path.is_file():
        return path.stat().st_size
    from safetensors import safe_open

    total, has_head = 0, False
    embedding = 0
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a mapping)
                part = tensors.get_slice(name)
                count = 1
                for size in part.get_shape():
                    count *= size
                kind = part.get_dtype()
                width = dtype_bytes if kind in ("F32", "F16", "BF16") else _WIDTHS.get(kind, 4)
                if name.endswith("embed_tokens.weight"):
                    embedding = count * width
                else:
                    total += count * width
                    has_head |= name.startswith("lm_head")
    return total if has_head else total + embedding


_WIDTHS = {"I8": 1, "U8": 1, "I16": 2, "I32": 4, "I64": 8}
