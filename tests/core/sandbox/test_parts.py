"""Limits, tiers, filters and control groups."""

from __future__ import annotations

import os
import re
import signal
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core import sandbox
from sharpen.core.errors import ConfigError
from sharpen.core.sandbox import Limits, SandboxUnavailable, bubblewrap, tiers
from sharpen.core.sandbox.cgroup import find_home
from sharpen.core.sandbox.inside import linux, scratch, seccomp
from sharpen.core.sandbox.python import Interpreter
from sharpen.core.sandbox.tiers import Tiers, choose_tier, detect_tiers


def test_every_public_name_is_there() -> None:
    assert sorted(sandbox.__all__) == sandbox.__all__ == sorted(sandbox._MODULES)
    for name in sandbox.__all__:
        assert getattr(sandbox, name) is not None


def test_limits_are_read_from_words() -> None:
    limits = Limits.parse("cpu=2, mem=256M,procs=4,wall=7.5,output_bytes=10K")
    assert limits.cpu_s == 2
    assert limits.memory_bytes == 256 << 20
    assert limits.processes == 4
    assert limits.wall_limit_s == 7.5
    assert limits.output_bytes == 10240
    assert Limits.parse("mem=1GiB").memory_bytes == 1 << 30
    assert Limits.parse("") == Limits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu", "write name=value"),
        ("cpus=2", "Did you mean 'cpu"),
        ("cpu=fast", "give a number"),
        ("cpu=2M", "give a number"),
        ("mem=-1", "give a number"),
        ("mem=0", "above 0"),
    ],
)
def test_words_that_are_no_limit_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Limits.parse(text)


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"cpu_s=0 \(Limits\)"):
        Limits(cpu_s=0)
    with pytest.raises(ConfigError, match=r"processes=1\.5"):
        Limits(processes=1.5)  # type: ignore[arg-type]
    assert Limits(cpu_s=1).wall_limit_s == 11
    assert Limits(cpu_s=100).wall_limit_s == 300


def test_a_machine_without_a_tier_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {1: "this kernel is without Landlock", 2: "install bubblewrap", 3: "needs tier 2"}
    monkeypatch.setattr(tiers, "detect_tiers", lambda: Tiers(best=0, missing=missing))
    with pytest.raises(SandboxUnavailable, match=r"without Landlock.*--unsafe-no") as caught:
        choose_tier("auto")
    assert caught.value.exit_code == 3
    assert choose_tier("auto", allow_unsafe=True) == 0
    monkeypatch.setattr(tiers, "detect_tiers", lambda: Tiers(best=1, missing=missing))
    assert choose_tier("auto") == 1
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        choose_tier(2)


def test_another_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = detect_tiers.__wrapped__()
    assert found.best == 0
    assert "Linux" in found.missing[1]
    monkeypatch.setattr(tiers, "detect_tiers", lambda: found)
    with pytest.raises(SandboxUnavailable, match="container"):
        choose_tier("auto", allow_unsafe=True)


def test_what_was_found_is_plain_data() -> None:
    document = detect_tiers().to_json()
    assert document["best"] in (0, 1, 2, 3)
    assert detect_tiers().best == 3 - len(detect_tiers().missing)


# -- filters ---------------------------------------------------------------------------------


def simulate(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter says to a call, by the rules of classic BPF."""
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *padded)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return int(value)
        else:
            test = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += if_true if test else if_false


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


@pytest.mark.parametrize("machine", sorted(seccomp.ARCHITECTURES))
def test_the_filter_refuses_what_it_says(machine: str) -> None:
    architecture, place = seccomp.ARCHITECTURES[machine]
    program = seccomp.program_filter(machine)
    for name, numbers in seccomp.DENIED.items():
        number = numbers[place]
        if number is not None:
            assert simulate(program, architecture, number) == EPERM, name
    clone, pair, ioctl = ((56, 220)[place], (53, 199)[place], (16, 29)[place])
    assert simulate(program, architecture, clone, 17) == ALLOW
    assert simulate(program, architecture, clone, 0x3D0F00) == ALLOW  # a thread
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert simulate(program, architecture, clone, 17 | 1 << bit) == EPERM
    assert simulate(program, architecture, 435) == ENOSYS
    assert simulate(program, architecture, pair, 1) == ALLOW
    assert simulate(program, architecture, pair, 2) == EPERM
    assert simulate(program, architecture, ioctl, 0, 0x5401) == ALLOW
    assert simulate(program, architecture, ioctl, 0, 0x5412) == EPERM
    prlimit = (302, 261)[place]
    assert simulate(program, architecture, prlimit, 0, 7) == ALLOW
    assert simulate(program, architecture, prlimit, 1) == EPERM
    assert simulate(program, architecture, prlimit, 1 << 32) == ALLOW  # the kernel reads 32 bits
    for number in ((0, 63)[place], (39, 172)[place], (60, 93)[place]):  # read, getpid, exit
        assert simulate(program, architecture, number) == ALLOW
    for other in (0x40000003, 0xC000003E ^ 0xC00000B7 ^ architecture):
        assert simulate(program, other, 39) == KILL
    if machine == "x86_64":
        assert simulate(program, architecture, 0x40000000 + 39) == EPERM
        assert simulate(program, architecture, 0xFFFFFFFF) == EPERM


@pytest.mark.parametrize("machine", sorted(seccomp.ARCHITECTURES))
def test_the_second_filter_lets_a_job_signal_itself_alone(machine: str) -> None:
    architecture, place = seccomp.ARCHITECTURES[machine]
    program = seccomp.own_signals_filter(machine, 1234)
    kill, tkill = (62, 129)[place], (200, 130)[place]
    for pid, answer in ((0, ALLOW), (1234, ALLOW), (1, EPERM), (0xFFFFFFFF, EPERM)):
        assert simulate(program, architecture, kill, pid, 9) == answer
    assert simulate(program, architecture, tkill, 1234) == EPERM
    assert simulate(program, architecture, 434, 1234) == EPERM


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_of_calls_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    known = {name: int(number) for name, number in lines}
    place = seccomp.ARCHITECTURES[machine][1]
    tables = (seccomp.DENIED, seccomp._OF_ITSELF, seccomp._SIGNALS, seccomp._SIGNALS_DENIED)
    checked = 0
    for table in tables:
        for name, numbers in table.items():
            if name in known:
                assert numbers[place] == known[name], name
                checked += 1
    assert checked > 60


# -- the folder of jobs ------------------------------------------------------------------------


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c.d"]), min_size=1, max_size=6), max_size=20))
def test_a_folder_is_emptied_and_counted(paths: list[list[str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        for index, parts in enumerate(paths):
            folder = Path(root, *parts)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"file{index}").write_bytes(b"x" * 100)
            (folder / f"link{index}").symlink_to("/etc")
        entries = sum(len(names) + len(files) for _, names, files in os.walk(root))
        assert scratch.used_bytes(root, 1 << 40) >= 4096 * len(paths)
        assert scratch.used_bytes(root, 1 << 40) <= 4096 * entries + 4096 * len(paths)
        assert scratch.empty(root)
        assert list(Path(root).iterdir()) == []
    assert Path("/etc").is_dir()


def test_what_is_many_or_deep_counts_as_too_much(tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["d"] * 60)
    deep.mkdir(parents=True)
    assert scratch.used_bytes(str(tmp_path), 1 << 40) == (1 << 40) + 1
    assert scratch.used_bytes(str(tmp_path), 8192) > 8192
    assert scratch.empty(str(tmp_path))


# -- control groups ----------------------------------------------------------------------------


def hierarchy(tmp_path: Path, cgroup: str, mounts: str) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mounts)
    return proc


def test_version_1_is_found_by_its_mounts(tmp_path: Path) -> None:
    for name in ("memory/app", "pids"):
        (tmp_path / name).mkdir(parents=True)
    proc = hierarchy(
        tmp_path,
        "9:pids:/\n4:cpu,cpuacct:/x\n3:memory:/app\n0::/\n",
        f"30 29 0:26 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"31 29 0:27 / {tmp_path}/pids rw - cgroup cgroup rw,pids\n",
    )
    home = find_home(proc)
    assert home is not None
    assert home.version == 1
    assert dict(home.folders) == {"memory": tmp_path / "memory/app", "pids": tmp_path / "pids"}


def test_version_2_is_below_or_beside(tmp_path: Path) -> None:
    own = tmp_path / "unified/user/own"
    own.mkdir(parents=True)
    (tmp_path / "unified/user/cgroup.subtree_control").write_text("cpu memory pids")
    proc = hierarchy(
        tmp_path, "0::/user/own\n", f"30 29 0:26 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
    )
    # its own group has no file that gives children controllers, so a group goes beside it
    home = find_home(proc)
    assert home is not None
    assert {folder for _, folder in home.folders} == {own.parent}
    (own / "cgroup.subtree_control").write_text("memory pids")
    below = find_home(proc)
    assert below is not None
    assert {folder for _, folder in below.folders} == {own}


def test_no_group_where_none_may_be_made(tmp_path: Path) -> None:
    assert find_home(tmp_path) is None
    proc = hierarchy(tmp_path, "0::/\n", "1 2 3 / /proc rw - proc proc rw\n")
    assert find_home(proc) is None


def test_folders_that_the_file_system_inside_hides_are_mounted_elsewhere() -> None:
    hidden = "/tmp/venv/lib/python3/site-packages"
    python = Interpreter("/opt/python/bin/python3", ("/opt/python", hidden), (hidden,))
    places = bubblewrap.places(python)
    assert places == {"/opt/python": "/opt/python", hidden: "/mnt/1"}
    inside = python.moved(places)
    assert inside == Interpreter("/opt/python/bin/python3", ("/opt/python", "/mnt/1"), ("/mnt/1",))
    words = bubblewrap.command("bwrap", python, {}, 1)
    at = words.index(hidden)
    assert words[at - 1 : at + 2] == ["--ro-bind", hidden, "/mnt/1"]
    assert words.index("/mnt") < at


def test_a_process_whose_parent_is_gone_already_ends_too() -> None:
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent(signal.SIGKILL, os.getppid() + 1)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent(signal.SIGKILL, os.getppid())
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
