import dataclasses
import json
import os
import time
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("length", [128, 145, 512, 3000, 4096, 32_768])
def test_attention_has_a_part_for_each_pair_and_one_for_each_token(length: int) -> None:
    table = rates(0.005, 4.0)
    device = dataclasses.replace(PROFILE, attention={"float32": table})
    found = device.attention_gflops("float32", length, 64)
    assert found == pytest.approx(1 / (0.005 + 4.0 / length))
    assert device.attention_gflops("float32", 10, 64) == pytest.approx(table.gflops[0][0])


@pytest.mark.parametrize(("last", "longest"), [(300.0, 600.0), (20.0, 20.0)])
def test_attention_of_long_documents_stays_near_what_was_measured(
    last: float, longest: float
) -> None:
    """Also where other work made the short ones look much slower or faster than they are."""
    table = RateTable(
        rows=(128, 512, 4096), widths=(32, 128), gflops=((9, 9), (30, 30), (last,) * 2)
    )
    device = dataclasses.replace(PROFILE, attention={"float32": table})
    found = [device.attention_gflops("float32", s, 64) for s in (4096, 8192, 10**9)]
    assert found[0] == pytest.approx(last)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(longest)


def test_a_profile_survives_its_file() -> None:
    assert from_dict(DeviceProfile, to_dict(PROFILE)) == PROFILE


def test_this_machine_is_measured_once_and_a_damaged_cache_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_profile()
    assert first.memory_bytes > 1 << 30 and first.copy_gbps > 0.1
    assert first.base_bytes > 50 << 20
    assert set(first.matmul) == set(first.attention) == {"float32", "bfloat16"}
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


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(
        device_module, "_probe_in_child", lambda: dataclasses.replace(PROFILE, name="probed")
    )
    assert load_profile().name == "probed"
