"""A made-up machine for tests of plans."""

from pathlib import Path

import pytest

from caches import own_cache
from sharpen.core.config import to_dict
from sharpen.core.files import atomic_write_json
from sharpen.plan.device import DeviceProfile, RateTable, cache_file

TABLE = RateTable(rows=(1, 100), widths=(10, 1000), gflops=((1.0, 2.0), (10.0, 20.0)))
PROFILE = DeviceProfile(
    name="test",
    cores=2,
    threads=2,
    memory_bytes=8 << 30,
    caches={"L2": 1 << 20},
    matmul={"float32": TABLE, "bfloat16": TABLE},
    attention={"float32": TABLE, "bfloat16": TABLE},
    attention_forward={"float32": TABLE, "bfloat16": TABLE},
    copy_gbps=10.0,
    elementwise={"float32": 1e-9, "bfloat16": 1e-9},
    op_s=1e-6,
    base_bytes=100 << 20,
    torch="2.13.0",
)


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made for the made-up machine, from a cache in ``folder``."""
    own_cache(folder / "cache", monkeypatch)
    atomic_write_json(cache_file(), to_dict(PROFILE))
