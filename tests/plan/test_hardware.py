from pathlib import Path

import pytest

from plan_profile import PROFILE
from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.plan import Cluster, parse_devices
from sharpen.plan.hardware import Assumptions, accelerator_names


@pytest.mark.parametrize("name", [n for n in accelerator_names() if n != "cpu"])
def test_every_preset_names_its_source_and_has_sane_figures(name: str) -> None:
    device = parse_devices(f"2x{name}").device
    assert device.source and device.name
    assert 1e13 < device.peak_flops("bfloat16") < 1e16
    assert device.peak_flops("float32") <= device.peak_flops("bfloat16")
    assert 1e10 < device.memory_bytes < 1e12
    assert device.network_gb_s <= device.link_gb_s < device.memory_gb_s


@pytest.mark.parametrize("text", ["8xH100", "8 x h100", "8*H100", "8XH100"])
def test_a_count_and_a_name_in_any_case(text: str) -> None:
    cluster = parse_devices(text)
    assert (cluster.count, cluster.device.name) == (8, "H100 SXM 80GB")
    assert parse_devices(cluster) is cluster


def test_published_figures_of_the_h100() -> None:
    device = parse_devices("H100").device
    assert device.peak_flops("bfloat16") == 989.4e12
    assert device.memory_bytes == 80_000_000_000
    assert (device.memory_gb_s, device.link_gb_s, device.per_machine) == (3350, 450, 8)


def test_short_names_of_the_a100_have_80_gb() -> None:
    assert parse_devices("1xA100").device == parse_devices("1xa100-80gb").device
    assert parse_devices("1xA100-40").device.memory_gb == 40


def test_figures_are_changed_on_the_command_line() -> None:
    cluster = parse_devices("64xH100:per_machine=4, network_gb_s=12.5")
    assert (cluster.device.per_machine, cluster.device.network_gb_s) == (4, 12.5)
    assert cluster.device.link_gb_s == 450
    assert "given: per_machine, network_gb_s" in cluster.device.source


def test_a_file_describes_devices(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "count: 4\ndevice: {like: l40s, per_machine: 2}\nassume: {overlap: 0.5, slack: 0}\n"
    )
    cluster = parse_devices(file)
    assert (cluster.count, cluster.device.per_machine) == (4, 2)
    assert (cluster.assume.overlap, cluster.assume.links) == (0.5, 0.8)
    file.write_text("count: 4\ndevice: b200\n")
    assert parse_devices(str(file)).device.memory_gb == 180
    file.write_text(
        "count: 1\ndevice: {name: mine, peak_tflops: {bfloat16: 10}, memory_gb: 8, memory_gb_s: 50,"
        " link_gb_s: 5, host_gb_s: 5, per_machine: 1, network_gb_s: 1, source: me}\n"
    )
    mine = parse_devices(file).device
    assert mine.name == "mine"
    with pytest.raises(ConfigError, match=r"mine has no peak for dtype=float32. It has: bfloat16"):
        mine.peak_flops("float32")


def test_this_machine_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.plan.hardware.load_profile", lambda: PROFILE)
    device = parse_devices("2xcpu").device
    assert device.memory_bytes == pytest.approx(PROFILE.memory_bytes)
    assert device.peak_flops("float32") == pytest.approx(PROFILE.matmul["float32"].peak * 1e9)
    assert device.per_machine == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8xH1000", "no device 'H1000'. Did you mean 'h100'"),
        ("8xTPU", "Known: a100-40gb, a100-80gb"),
        ("0xH100", "the count 0 must be at least 1"),
        ("-3xH100", "the count -3 must be at least 1"),
        ("8x", "not of the form COUNTxNAME"),
        ("8xH100:nvlink=3", "unknown key 'nvlink'.*Allowed: .*link_gb_s"),
        ("8xH100:link_gb_s=0", "link_gb_s=0.* must be above 0"),
        ("8xH100:per_machine=0", "per_machine=0 must be at least 1"),
        ("8xH100:products=1.5", "products=1.5 must be above 0 and at most 1"),
        ("8xH100:peak_tflops={}", "peak_tflops={} must have rates above 0"),
    ],
)
def test_wrong_devices_say_what_is_right(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_devices(text)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        parse_devices(tmp_path / "none.yaml")
    file = tmp_path / "lab.yaml"
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="'count' and 'device'"):
        parse_devices(file)
    file.write_text("count: 0\ndevice: h100\n")
    with pytest.raises(ConfigError, match=r"lab.yaml:1: .*count=0 must be at least 1"):
        parse_devices(file)


@pytest.mark.parametrize(
    ("field", "value"), [("links", 0.0), ("overlap", 1.1), ("slack", -1.0), ("memory", 2.0)]
)
def test_assumptions_have_ranges(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}="):
        Assumptions(**{field: value})


def plain(text: str) -> Cluster:
    cluster = parse_devices(text)
    return Cluster(
        count=cluster.count, device=cluster.device, assume=Assumptions(links=1, overlap=1)
    )


def test_a_group_inside_a_machine_uses_its_links() -> None:
    cluster = plain("64xH100")
    assert not cluster.crosses(8, 1)
    rates = {cluster.ring_rate(8, 1), cluster.neighbour_rate(8, 1), cluster.all_to_all_rate(8, 1)}
    assert rates == {450e9}
    assert cluster.start_s(8, 1) == pytest.approx(7 * 3e-6)


def test_a_group_across_machines_shares_the_network() -> None:
    cluster = plain("64xH100")
    assert cluster.crosses(64, 1) and cluster.crosses(2, 8)
    assert cluster.ring_rate(64, 1) == 400e9  # eight shares of 50 GB/s leave a machine
    assert cluster.ring_rate(8, 8) == 50e9  # one member a machine
    assert cluster.neighbour_rate(16, 4) == 50e9
    assert cluster.start_s(64, 1) == pytest.approx(7 * 3e-6 + 7 * 12e-6)
    # Of 15 partners 7 are near: 8/15 of the bytes go over 50 GB/s.
    assert cluster.all_to_all_rate(16, 1) == pytest.approx(50e9 * 15 / 8)
    assert cluster.all_to_all_rate(1, 1) == 450e9
