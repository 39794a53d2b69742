import dataclasses
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plan_profile import PROFILE, TABLE
from sharpen.core.config import from_dict, to_dict
from sharpen.plan import device as device_module
from sharpen.plan.device import DeviceProfile, RateTable, cache_file, load_profile


def test_the_tables_corners_and_middle() -> None:
    assert [TABLE.at(r, w) for r in (1, 100) for w in (10, 1000)] == [1.0, 2.0, 10.0, 20.0]
    assert TABLE.at(10, 100) == pytest.approx((1 + 2 + 10 + 20) / 4)
    assert TABLE.at(0.5, 1) == 1.0 and TABLE.at(10**6, 10**6) == 20.0
    assert TABLE.peak == 20.0


@given(rows=st.floats(0.1, 1e5), width=st.floats(1, 1e5))
def test_rates_stay_within_what_was_measured(rows: float, width: float) -> None:
    assert 1.0 - 1e-9 <= TABLE.at(rows, width) <= 20.0 + 1e-9


def test_seconds_of_a_product() -> None:
    assert PROFILE.seconds("float32", 100, 1000, 1000) == pytest.approx(2e8 / 20e9)


def rates(a: float, b: float) -> RateTable:
    """Rates whose inverse is a + b / length."""
    lengths = (128, 512, 4096)
    lines = tuple((1 / (a + b / s),) * 2 for s in lengths)
    return RateTable(rows=lengths, widths=(32, 128), gflops=lines)


@pytest.mark.parametrize("length", [128, 145, 512, 3000, 4096])
def test_attention_has_a_part_for_each_pair_and_one_for_each_token(length: int) -> None:
    table = rates(0.005, 4.0)
    device = dataclasses.replace(PROFILE, attention={"float32": table})
    found = device.attention_gflops("float32", length, 64)
    assert found == pytest.approx(1 / (0.005 + 4.0 / length))
    assert device.attention_gflops("float32", 10, 64) == pytest.approx(table.gflops[0][0])
    assert device.attention_gflops("float32", 10**9, 64) == pytest.approx(table.gflops[-1][0])


def test_the_forward_pass_of_attention_has_rates_of_its_own() -> None:
    both, forward = rates(0.005, 4.0), rates(0.002, 1.0)
    device = dataclasses.replace(
        PROFILE, attention={"float32": both}, attention_forward={"float32": forward}
    )
    found = device.attention_gflops("float32", 700, 64, forward=True)
    assert found == pytest.approx(1 / (0.002 + 1.0 / 700))


def test_of_attention_the_operations_that_are_timed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs that whole documents see, and of a long one those of its last queries."""
    monkeypatch.setattr(device_module, "_shortest", lambda work, repeats: 1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    both, forward = device_module._measure_attention(torch.float32, 1)
    assert both.rows[-2:] == (4096, 32_768) and both.widths[0] == 32
    pairs = 3 * 4096 * 4097 / 2, 3 * 1024 * 16_384
    for line, count in zip(forward.gflops[-2:], pairs, strict=True):
        assert line[0] * 1e9 == pytest.approx(2 * 2 * 32 * count, rel=2e-3)
    for line, third in zip(both.gflops, forward.gflops, strict=True):
        assert line == pytest.approx([3 * x for x in third], rel=1e-2)


def test_a_profile_survives_its_file() -> None:
    assert from_dict(DeviceProfile, to_dict(PROFILE)) == PROFILE


def test_this_machine_is_measured_once_and_a_damaged_cache_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_profile()
    assert first.memory_bytes > 1 << 30 and first.copy_gbps > 0.1
    assert first.base_bytes > 50 << 20
    types = {"float32", "bfloat16"}
    assert set(first.matmul) == set(first.attention) == set(first.attention_forward) == types
    assert cache_file().is_file()
    assert load_profile() == first
    old = dataclasses.replace(first, name="measured long ago")
    cache_file().write_text(json.dumps(to_dict(old)))
    assert load_profile().name == "measured long ago"
    names = iter(["after ten minutes", "after damage"])
    probed = lambda: dataclasses.replace(first, name=next(names))  # noqa: E731
    monkeypatch.setattr(device_module, "_probe_in_child", probed)
    os.utime(cache_file(), (0, time.time() - 601))
    assert load_profile().name == "after ten minutes"
    cache_file().write_text("{")
    assert load_profile().name == "after damage"


def test_of_several_that_need_it_one_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []

    def probed() -> DeviceProfile:
        measured.append(PROFILE)
        time.sleep(0.2)  # the others come meanwhile
        return PROFILE

    monkeypatch.setattr(device_module, "_probe_in_child", probed)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: load_profile(), range(3)))
    assert found == [PROFILE] * 3
    assert len(measured) == 1


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(
        device_module, "_probe_in_child", lambda: dataclasses.replace(PROFILE, name="probed")
    )
    assert load_profile().name == "probed"
