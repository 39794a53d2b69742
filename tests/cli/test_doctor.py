import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plan_profile import PROFILE
from sharpen.core import assets
from sharpen.core.config import from_dict
from sharpen.native.build import SUBJECTS

Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _few_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing the real model takes a while; the standard library has no hash."""
    monkeypatch.setattr(assets, "ASSETS", {"python-stdlib": assets.ASSETS["python-stdlib"]})


def checks(done: Any) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.out)["checks"]}


def test_a_good_machine_is_ok(invoke: Invoke) -> None:
    done = invoke("doctor", "--json")
    assert done.code == 0
    assert json.loads(done.out)["ok"]
    found = checks(done)
    for name in ("python", "torch", "asset python-stdlib", "cache folder", "working folder"):
        assert found[name]["status"] == "ok", found[name]
    assert "working folder" in invoke("doctor").out


@pytest.mark.parametrize(
    ("value", "status", "found"),
    [
        ("0", "ok", "off"),
        ("scalar", "ok", f"scalar: {', '.join(SUBJECTS)}"),
        ("sse9", "bad", "sse9"),
    ],
)
def test_native_kernels(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, value: str, status: str, found: str
) -> None:
    monkeypatch.setenv("SHARPEN_NATIVE", value)
    check = checks(invoke("doctor", "--json"))["native kernels"]
    assert check["status"] == status
    assert check["found"].startswith(found)


def test_no_compiler_is_no_error(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sharpen.native.build._loaded", {})
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    done = invoke("doctor", "--json")
    assert done.code == 0
    check = checks(done)["native kernels"]
    assert check["status"] == "missing"
    assert "install g++" in check["todo"]


def test_missing_extras_and_assets_say_how_to_get_them(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharpen.cli.doctor._EXTRAS", {"odd": ("no-such-package",)})
    gone = assets.Asset(
        name="gone",
        kind="model",
        origin="package",
        distribution="no-such-dist",
        version="1",
        file="x",
        licence="MIT",
        source="nowhere",
    )
    monkeypatch.setattr(assets, "ASSETS", {"gone": gone})
    done = invoke("doctor", "--json")
    assert done.code == 0
    found = checks(done)
    assert found["extra odd"]["todo"] == "pip install 'sharpen[odd]'"
    assert found["asset gone"]["todo"] == "pip install --no-deps no-such-dist==1"


def test_changed_bytes_are_code_1(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = assets.Asset(
        name="changed",
        kind="model",
        origin="package",
        distribution="typer",
        version="1",
        file="typer/main.py",
        sha256="0" * 64,
        licence="MIT",
        source="nowhere",
    )
    monkeypatch.setattr(assets, "ASSETS", {"changed": changed})
    done = invoke("doctor", "--json")
    assert done.code == 1
    assert checks(done)["asset changed"]["status"] == "bad"


@pytest.mark.slow
def test_probing_writes_the_device_profile(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sharpen.plan.device import DeviceProfile, cache_file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sharpen.plan.device._probe_in_child", lambda: PROFILE)
    done = invoke("doctor", "--probe", "--json")
    assert checks(done)["device"]["status"] == "ok"
    assert cache_file().is_relative_to(tmp_path)
    assert from_dict(DeviceProfile, json.loads(cache_file().read_text())) == PROFILE
