"""What this machine can do, measured: GFLOP/s of products and attention, GB/s of memory, sizes.

Rates depend on the shape: a product of [M, K] and [K, N] is timed over a small grid of M and of the
width sqrt(K N), for each type, and interpolated on logarithmic axes in between. Attention is timed
on documents of a few lengths, both passes and the forward pass alone. Its time has a part for each
pair of tokens and one for each token, so the inverse rate is linear in 1 / S between two lengths::

    1 / rate(S) = a + b / S

a and b change where the kernel takes longer blocks of queries (from 768 tokens on), and where keys
and values outgrow the core's cache; hence the lengths. Of the longest, where a alone is left, only
the last queries are timed, on the keys that a token sees on average. It counts beyond, too.

The profile is kept in the user's cache, by processor, torch version and number of threads.
Measuring takes seconds, and what a machine can do changes with what else it does: a profile counts
for ten minutes.
"""

from __future__ import annotations

import bisect
import json
import logging
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from sharpen.core.config import digest, from_dict, read_json, to_dict
from sharpen.core.errors import BusyError, ExecutionError, SharpenError, StorageError
from sharpen.core.files import FileLock, atomic_write_json, cache_home
from sharpen.core.huge_pages import worker_environment
from sharpen.native.info import is_amd_with_avx512

__all__ = ["DeviceProfile", "RateTable", "load_profile", "probe"]

_log = logging.getLogger(__name__)
_FORMAT = 6
_ROWS = (16, 128, 512, 2048)
_WIDTHS = (96, 320, 1024, 2048)
_LENGTHS = (128, 512, 1024, 4096, 32_768)
_WHOLE = 4096  # tokens up to which documents are timed whole, as many as make so many
_LAST_QUERIES = 1024  # of a longer one
_HEAD_DIMS = (32, 128)
_DTYPES = ("float32", "bfloat16")
_COPY_BYTES = 64 << 20
_MAX_AGE_S = 600
_WAIT_S = 120.0  # for another process that measures
_IMPORTS = "import torch, numpy, tokenizers, safetensors.torch, jinja2, sqlalchemy, psutil"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTable:
    """GFLOP/s of matrix products, or of attention, over a grid of shapes."""

    rows: tuple[int, ...]
    """M, ascending; of attention, the length."""

    widths: tuple[int, ...]
    """sqrt(K N), ascending; of attention, the head size."""

    gflops: tuple[tuple[float, ...], ...]
    """One row for each of ``rows``, a value for each of ``widths``."""

    def at(self, rows: float, width: float) -> float:
        """GFLOP/s at a shape, between the grid's points by logarithms; flat outside the grid."""
        i, u = _place(self.rows, rows)
        j, v = _place(self.widths, width)
        low = (1 - v) * self.gflops[i][j] + v * self.gflops[i][j + 1]
        high = (1 - v) * self.gflops[i + 1][j] + v * self.gflops[i + 1][j + 1]
        return (1 - u) * low + u * high

    @property
    def peak(self) -> float:
        """The highest rate of the grid."""
        return max(max(row) for row in self.gflops)


def _place(grid: Sequence[int], value: float) -> tuple[int, float]:
    """Index of the cell that holds ``value``, and where in it, 0 to 1."""
    value = min(max(value, grid[0]), grid[-1])
    i = min(max(bisect.bisect_right(grid, value) - 1, 0), len(grid) - 2)
    return i, math.log(value / grid[i]) / math.log(grid[i + 1] / grid[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """A machine as the cost models see it."""

    name: str
    """Processor."""

    cores: int
    """Cores this process may use."""

    threads: int
    """Threads torch uses."""

    memory_bytes: int
    """All memory of the machine."""

    caches: dict[str, int]
    """Bytes of each cache level, such as ``L2``."""

    matmul: dict[str, RateTable]
    """GFLOP/s by type: ``float32`` and ``bfloat16``."""

    attention: dict[str, RateTable]
    """GFLOP/s of causal attention, forward and backward, by type; only what is seen counts."""

    attention_forward: dict[str, RateTable]
    """The same of the forward pass alone, as a block that is computed again repeats it."""

    copy_gbps: float
    """GB/s of a large copy, bytes read plus bytes written."""

    elementwise: dict[str, float]
    """Seconds an element of one element-wise operation into new memory, by type."""

    op_s: float
    """Seconds to start one small operation."""

    base_bytes: int
    """Resident memory of a process that has only imported what training needs."""

    torch: str
    """Version of torch."""

    def seconds(self, dtype: str, rows: float, k: int, n: int) -> float:
        """Seconds of one product [rows, k] x [k, n]."""
        rate = self.matmul[dtype].at(rows, math.sqrt(k * n))
        return 2 * rows * k * n / (rate * 1e9)

    def attention_gflops(
        self, dtype: str, length: float, head_dim: int, *, forward: bool = False
    ) -> float:
        """GFLOP/s of attention within documents.

        Args:
            dtype: ``float32`` or ``bfloat16``.
            length: tokens of a document; beyond the longest that was measured, the rate is its.
            head_dim: size of a head.
            forward: of the forward pass alone instead of both.
        """
        table = (self.attention_forward if forward else self.attention)[dtype]
        length = min(max(length, table.rows[0]), table.rows[-1])
        i, _ = _place(table.rows, length)
        short, long = table.rows[i], table.rows[i + 1]
        slow, fast = 1 / table.at(short, head_dim), 1 / table.at(long, head_dim)
        share = (1 / length - 1 / long) / (1 / short - 1 / long)
        return 1 / (fast + share * (slow - fast))


def cache_file() -> Path:
    """Where this machine's profile is kept."""
    return cache_home() / "devices" / f"{digest(_identity())}.json"


def _identity() -> dict[str, Any]:
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "format": _FORMAT,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "torch": metadata.version("torch"),
        "python": platform.python_version(),
        "grid": [list(_ROWS), list(_WIDTHS), list(_LENGTHS), list(_HEAD_DIMS)],
    }


def load_profile(*, max_age_s: float = _MAX_AGE_S) -> DeviceProfile:
    """This machine's profile: from the cache if it is recent, or measured now and cached.

    It is measured in a process started as a stage's process is, so that it has the same allocator
    and threads. A cache that cannot be read or written is no error; it is measured again.

    Args:
        max_age_s: of a profile from the cache.

    Raises:
        ExecutionError: the measuring process failed; its last words are in the message.
    """
    path = cache_file()
    kept = _kept(path, max_age_s)
    if kept is not None:
        return kept
    # Of several that need it one measures: they would take each other's time.
    lock = FileLock(path.with_suffix(".lock"), "the device profile")
    try:
        lock.acquire(timeout_s=_WAIT_S)
    except (BusyError, StorageError) as error:
        _log.debug("the device profile is measured without a lock: %s", error)
    try:
        kept = _kept(path, max_age_s)
        if kept is not None:
            return kept
        profile = _probe_in_child()
        try:
            atomic_write_json(path, to_dict(profile))
        except StorageError as error:
            _log.warning("the device profile cannot be kept: %s", error)
        return profile
    finally:
        lock.release()


def _kept(path: Path, max_age_s: float) -> DeviceProfile | None:
    """The profile in a file, if it is there, recent and whole."""
    try:
        if time.time() - path.stat().st_mtime < max_age_s:
            return from_dict(DeviceProfile, read_json(path, "device profile"))
    except OSError:
        return None
    except SharpenError as error:
        _log.warning("the device profile is damaged (%s); measuring again", error)
    return None


def _probe_in_child() -> DeviceProfile:
    done = subprocess.run(
        [sys.executable, "-m", "sharpen.plan.device"],
        capture_output=True,
        text=True,
        env=worker_environment(),
    )
    if done.returncode:
        raise ExecutionError(f"measuring this machine failed: {done.stderr.strip()[-500:]}")
    return from_dict(DeviceProfile, json.loads(done.stdout))


def probe(*, repeats: int = 5) -> DeviceProfile:
    """Measure this machine: about eight seconds.

    Args:
        repeats: timings of each shape; the shortest counts.
    """
    import torch

    attention = {name: _measure_attention(getattr(torch, name), repeats) for name in _DTYPES}
    return DeviceProfile(
        name=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        memory_bytes=psutil.virtual_memory().total,
        caches=_caches(),
        matmul={name: _measure_matmul(getattr(torch, name), repeats) for name in _DTYPES},
        attention={name: both for name, (both, _) in attention.items()},
        attention_forward={name: forward for name, (_, forward) in attention.items()},
        copy_gbps=_measure_copy(repeats),
        elementwise={n: _measure_elementwise(getattr(torch, n), repeats) for n in _DTYPES},
        op_s=_measure_op(),
        base_bytes=_measure_base(),
        torch=torch.__version__,
    )


def _shortest(work: Callable[[], object], repeats: int) -> float:
    work()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _measure_matmul(dtype: Any, repeats: int) -> RateTable:
    import torch
    import torch.nn.functional as F

    # As the models multiply: see sharpen.models.matmul.
    onednn = dtype == torch.float32 and torch._C._has_mkldnn and is_amd_with_avx512()
    table = []
    with torch.inference_mode():
        for rows in _ROWS:
            line = []
            multiply = _by_onednn if onednn and rows % 32 == 0 else F.linear
            for width in _WIDTHS:
                x = torch.randn(rows, width, dtype=torch.float32).to(dtype)
                w = torch.randn(width, width, dtype=torch.float32).to(dtype)
                times = max(1, int(2e7 / (2 * rows * width * width)))

                def work(
                    x: Any = x, w: Any = w, times: int = times, multiply: Any = multiply
                ) -> None:
                    for _ in range(times):
                        multiply(x, w)

                seconds = _shortest(work, repeats) / times
                line.append(round(2 * rows * width * width / seconds / 1e9, 3))
            table.append(tuple(line))
    return RateTable(rows=_ROWS, widths=_WIDTHS, gflops=tuple(table))


def _by_onednn(x: Any, weight: Any) -> Any:
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _measure_attention(dtype: Any, repeats: int) -> tuple[RateTable, RateTable]:
    """Both passes, and the forward pass alone.

    One head for each thread, which share work in the backward pass head by head.
    """
    import torch
    import torch.nn.functional as F

    heads = torch.get_num_threads()
    both, alone = [], []
    for length in _LENGTHS:
        lines: tuple[list[float], list[float]] = ([], [])
        whole = length <= _WHOLE
        rows = _WHOLE // length if whole else 1
        queries, keys = (length, length) if whole else (_LAST_QUERIES, length // 2)
        pairs = rows * heads * (length * (length + 1) // 2 if whole else queries * keys)
        for size in _HEAD_DIMS:
            q, k, v, grad = (
                torch.randn(rows, heads, tokens, size).to(dtype)
                for tokens in (queries, keys, keys, queries)
            )

            def forward(q: Any = q, k: Any = k, v: Any = v, whole: bool = whole) -> torch.Tensor:
                return F.scaled_dot_product_attention(q, k, v, is_causal=whole)

            def passes(
                q: Any = q, k: Any = k, v: Any = v, grad: Any = grad, whole: bool = whole
            ) -> None:
                q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
                out = F.scaled_dot_product_attention(q, k, v, is_causal=whole)
                torch.autograd.grad(out, (q, k, v), grad)

            times = 2 if length >= _WHOLE else repeats
            for line, work, products in ((lines[0], passes, 6), (lines[1], forward, 2)):
                seconds = _shortest(work, times)
                line.append(round(products * 2 * pairs * size / seconds / 1e9, 3))
        both.append(tuple(lines[0]))
        alone.append(tuple(lines[1]))
    return (
        RateTable(rows=_LENGTHS, widths=_HEAD_DIMS, gflops=tuple(both)),
        RateTable(rows=_LENGTHS, widths=_HEAD_DIMS, gflops=tuple(alone)),
    )


def _measure_copy(repeats: int) -> float:
    import torch

    source = torch.ones(_COPY_BYTES // 4)
    target = torch.zeros_like(source)
    seconds = _shortest(lambda: target.copy_(source), repeats)
    return round(2 * _COPY_BYTES / seconds / 1e9, 3)


def _measure_elementwise(dtype: Any, repeats: int) -> float:
    """Silu and a product, the dearest of a block and a plain one; results are kept alive."""
    import torch
    import torch.nn.functional as F

    x = torch.randn(512, 1536).to(dtype)
    times = 32

    def work() -> None:
        alive = []
        for _ in range(times):
            alive.append(F.silu(x))
            alive.append(x * x)

    return _shortest(work, repeats) / (2 * times * x.numel())


def _measure_op(times: int = 200) -> float:
    import torch

    x = torch.ones(8)

    def work() -> None:
        for _ in range(times):
            torch.add(x, x)

    return round(_shortest(work, 5) / times, 9)


def _measure_base() -> int:
    """Resident bytes of a fresh process after its imports."""
    code = f"{_IMPORTS}\nimport psutil\nprint(psutil.Process().memory_info().rss)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        )
        return int(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return psutil.Process().memory_info().rss


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _caches() -> dict[str, int]:
    found: dict[str, int] = {}
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level = (index / "level").read_text().strip()
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction" and size[-1] in units:
            found[f"L{level}"] = int(size[:-1]) * units[size[-1]]
    return found


if __name__ == "__main__":
    print(json.dumps(to_dict(probe())))
