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
from sharpen.plan.device import DeviceProfile, cache_file, load_profile


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


def test_a_profile_survives_its_file() -> None:
    assert from_dict(DeviceProfile, to_dict(PROFILE)) == PROFILE


def test_this_machine_is_measured_once_and_a_damaged_cache_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_profile()
    assert first.memory_bytes > 1 << 30 and first.copy_gbps > 0.1
    assert first.base_bytes > 50 << 20
    assert set(first.matmul) == {"float32", "bfloat16"}
    assert cache_file().is_file()
    assert load_profile() == first
    old = dataclasses.replace(first, name="measured long ago")
    cache_file().write_text(json.dumps(to_dict(old)))
    assert load_profile().name == "measured long ago"
    os.utime(cache_file(), (0, time.time() - 601))
    assert load_profile().name == first.name
    cache_file().write_text("{")
    again = load_profile()
    assert again.cores == first.cores


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(
        device_module, "_probe_in_child", lambda: dataclasses.replace(PROFILE, name="probed")
    )
    assert load_profile().name == "probed"
