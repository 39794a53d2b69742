"""Traces: files there and back, what is wrong in them, and workloads that are what they say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.problems.arch import WORKLOADS, Trace, read_trace, workload

NUMBERS, CYCLES = st.integers(0, 2**48), st.integers(0, 2**36 - 1)


def same(one: Trace, two: Trace) -> bool:
    names = ("at", "address", "is_write", "source", "after")
    return all(np.array_equal(getattr(one, n), getattr(two, n)) for n in names)


def test_the_style_of_stl_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "a.stl").write_text(
        "# a comment\n31:\tread\t0x400140\n\n33: write 128  # another\n"
    )
    trace = read_trace(path)
    assert trace.at.tolist() == [31, 33]
    assert trace.address.tolist() == [0x400140, 128]
    assert trace.is_write.tolist() == [0, 1]
    assert (trace.sources, trace.name, len(trace)) == (1, "a", 2)


def test_csv_is_read_with_and_without_sources(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_text(
        "cycle,kind,address,source,after\n3,read,0x40,1,\n5,write,64,0,0\n"
    )
    trace = read_trace(path)
    assert trace.source.tolist() == [1, 0]
    assert trace.after.tolist() == [-1, 0]
    path.write_text("address,cycle,kind\n64,3,read\n")
    assert same(read_trace(path), Trace(np.array([3]), np.array([64]), np.array([0])))


@given(st.lists(st.tuples(CYCLES, NUMBERS, st.integers(0, 1), st.integers(0, 3)), max_size=30))
def test_every_form_comes_back_as_it_was(rows: list[tuple[int, int, int, int]]) -> None:
    import tempfile

    rows.sort()
    parts = [np.array([r[k] for r in rows], dtype=np.int64) for k in range(4)]
    trace = Trace(parts[0], parts[1], parts[2], parts[3], np.arange(len(rows)) // 3 * 2 - 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace.save(folder / "a.trace")
        assert same(read_trace(folder / "a.trace"), trace)
        lines = ["cycle,kind,address,source,after"]
        kinds = ("read", "write")
        for i in range(len(rows)):
            at, address, is_write, source = (p[i] for p in parts)
            lines.append(f"{at},{kinds[is_write]},{address},{source},{trace.after[i]}")
        (folder / "a.csv").write_text("\n".join(lines) + "\n")
        assert same(read_trace(folder / "a.csv"), trace)
        plain = Trace(*parts[:3])
        text = (f"{r[0]}: {kinds[r[2]]} {r[1]:#x}\n" for r in rows)
        (folder / "a.stl").write_text("".join(text))
        assert same(read_trace(folder / "a.stl"), plain)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.stl", "1: read 0x40\n2: fetch 0x40\n", r"a.stl:2: '2: fetch 0x40' is no request"),
        ("a.stl", "1 read 0x40\n", "is no request"),
        ("a.stl", f"1: read {2**70}\n", "a.stl:1: .* out of range"),
        ("a.csv", "cycle,address\n1,2\n", "a.csv:1: the header lacks kind"),
        ("a.csv", "cycle,kind,address\n1,read,x\n", "a.csv:2: address must be a whole number"),
        ("a.csv", "cycle,kind,address\n1,load,64\n", "a.csv:2: kind must be read or write"),
        ("a.csv", "cycle,kind,address\n1,read\n", "a.csv:2: address must be a whole number"),
        ("a.trace", "nothing", "does not begin"),
        ("a.trace", "SHDRAM1\nxx", "is cut off: 2 bytes"),
        ("a.log", "", "not in '.log'"),
    ],
)
def test_files_that_are_wrong_say_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    (path := tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_trace(path)


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no trace"):
        read_trace(tmp_path / "none.stl")
    (path := tmp_path / "a.stl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="is no text"):
        read_trace(path)
    path.write_text("5: read 0\n4: read 0\n")
    with pytest.raises(DataError, match=r"a.stl: request 1 of source 0 .* cycle 4"):
        read_trace(path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0], [0, 1], [0]), "address must be 1 whole numbers"),
        (([0.5], [0], [0]), "at must be 1 whole numbers"),
        (([0], [-1], [0]), "address must lie from 0"),
        (([0], [0], [2]), "is_write must lie from 0 to 1"),
        (([0], [0], [0], [0], [0]), "request 0 waits for 0, not before it"),
        (([0], [0], [0], [-1]), "source must lie from 0 to 4095"),
        (([0], [0], [0], [10**9]), "source must lie from 0 to 4095"),
        (([2**36], [0], [0]), "at must lie from 0"),
    ],
)
def test_requests_that_contradict_each_other_are_an_error(
    parts: list[list[int]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Trace(*map(np.array, parts))


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_functions_of_their_seed(name: str) -> None:
    one, two, other = (workload(name, requests=500, seed=s) for s in (3, 3, 4))
    assert same(one, two)
    assert not same(one, other)
    assert len(one) == 500
    assert not (one.address % 64).any()
    for n in (1, 2, 7):
        assert len(workload(name, requests=n)) == n


def test_workloads_are_what_they_are_called() -> None:
    stream = workload("stream", requests=900)
    for k in range(3):
        assert set(np.diff(stream.address[k::3])) == {64}
    assert stream.is_write.mean() == pytest.approx(1 / 3)
    chase = workload("pointer-chase", requests=50)
    assert chase.after.tolist() == list(range(-1, 49))
    lines = workload("random", requests=4000).address // 64
    assert len(np.unique(lines)) > 3990
    counts = [
        np.sort(np.unique(workload(name, requests=8000).address // 4096, return_counts=True)[1])
        for name in ("cloud-1", "cloud-2")
    ]
    # The popular pages of the first have more of its requests.
    top = [c[-20:].sum() / c.sum() for c in counts]
    assert top[0] > 2 * top[1]
    decode = workload("llm-decode", requests=3000)
    assert 0.005 < decode.is_write.mean() < 0.1


def test_an_unknown_workload_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no workload 'streem'. Did you mean 'stream'"):
        workload("streem")
    with pytest.raises(ConfigError, match="requests=0"):
        workload("stream", requests=0)
