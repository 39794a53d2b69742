"""Samples of tar files: what is read and written back, and archives that mean harm."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.data import Dataset, ops
from sharpen.data.readers import locate_file, read_rows
from sharpen.data.tar import tar_rows

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000"
    "008200817734b54d0000000049454e44ae426082"
)
ADDRESS = "data:image/png;base64,"


def archive(path: Path, members: list[tuple[Any, ...]], mode: str = "w", **options: Any) -> Path:
    """Of (name, data) or (name, data, type, link)."""
    with tarfile.open(path, mode, **options) as file:
        for name, data, *more in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if more:
                info.type, info.linkname, info.size = more[0], more[1], 0
            file.addfile(info, io.BytesIO(data) if not more else None)
    return path


SAMPLES = [
    ("./a/1.txt", "größer".encode()),
    ("./a/1.png", PNG),
    ("./a/1.json", b'{"n": [1, 2], "caption": "grey"}'),
    ("./a/1.cls", b"7"),
    ("a/2.TXT", b"two"),
    ("a/2.seg.png", PNG),
    ("__MACOSX/._2.txt", b"hidden"),
]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.xz", "w:xz")],
)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_a_stem_are_a_row(tmp_path: Path, name: str, mode: str, format: int) -> None:
    path = archive(tmp_path / name, SAMPLES, mode, format=format)
    first, second = read_rows(path)
    address = first.pop("png")
    assert first == {
        "__key__": "a/1",
        "txt": "größer",
        "json": {"n": [1, 2], "caption": "grey"},
        "cls": 7,
    }
    assert address.startswith(ADDRESS)
    assert second == {"__key__": "a/2", "txt": "two", "seg.png": address}


def test_archives_packed_by_zstandard_are_read(tmp_path: Path) -> None:
    whole = archive(tmp_path / "x.tar", SAMPLES).read_bytes()
    with pa.output_stream(str(tmp_path / "x.tar.zst"), compression="zstd") as sink:
        sink.write(whole)
    assert list(read_rows(tmp_path / "x.tar.zst")) == list(read_rows(tmp_path / "x.tar"))


def test_long_names_and_prefixes_are_read_as_tarfile_reads_them(tmp_path: Path) -> None:
    long = "/".join(["folder" * 12] * 3) + "/" + "ü" * 40
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = archive(tmp_path / f"{format}.tar", [(f"{long}.txt", b"x")], format=format)
        (row,) = read_rows(path)
        assert row["__key__"] == long
    split = "d" * 90 + "/" + "e" * 90  # ustar parts it in two
    archive(tmp_path / "u.tar", [(f"{split}.txt", b"x")], format=tarfile.USTAR_FORMAT)
    assert next(read_rows(tmp_path / "u.tar"))["__key__"] == split


def wrong(path: Path) -> list[str]:
    return [error for _, _, error, _ in locate_file(path) if error is not None]


@pytest.mark.parametrize(
    ("member", "told"),
    [
        (("/etc/passwd.txt", b"x"), "absolute path or above its folder"),
        (("../../up.txt", b"x"), "absolute path or above its folder"),
        (("a/../b.txt", b"x"), "absolute path or above its folder"),
        (("s.txt", b"", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (("h.txt", b"", tarfile.LNKTYPE, "/etc/passwd"), "is a link"),
        (("d.txt", b"", tarfile.CHRTYPE, ""), "is no plain file"),
        (("README", b"x"), "no ending"),
        (("c.cls", b"seven"), "is not what its ending says"),
        (("c.json", b"[" * 100_000), "is not what its ending says"),
        (("c.txt", b"\xff"), "is not what its ending says"),
    ],
)
def test_hostile_members_are_refused_with_their_sample(
    tmp_path: Path, member: tuple[Any, ...], told: str
) -> None:
    path = archive(tmp_path / "x.tar", [("1.txt", b"one"), member, ("2.txt", b"two")])
    assert [row["txt"] for row in read_rows(path, on_error="skip")] == ["one", "two"]
    (error,) = wrong(path)
    assert told in error


def test_a_second_member_of_an_ending_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", [("1.txt", b"a"), ("1.txt", b"b"), ("2.txt", b"c")])
    assert wrong(path) == ["'1.txt' is a second 'txt' of its sample."]


def test_damaged_archives_say_where_and_what_is_lost(tmp_path: Path) -> None:
    members = [(f"{i}.txt", b"x" * 700) for i in range(3)]
    whole = archive(tmp_path / "x.tar", members).read_bytes()
    each = 512 + 1024
    for cut, kept in ((each + 600, ["0"]), (each + 100, []), (2 * each + 512, ["0", "1"])):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        found = list(locate_file(tmp_path / "cut.tar"))
        assert [row["__key__"] for _, row, error, _ in found if error is None] == kept
        assert "damaged from here on: it breaks off after" in str(found[-1][2])
    broken = bytearray(whole)
    broken[each + 20] ^= 1  # the header of the second
    (tmp_path / "broken.tar").write_bytes(broken)
    told = wrong(tmp_path / "broken.tar")
    assert told == [
        f"the archive is damaged from here on: there is no header at byte {each}. '0' is lost."
    ]
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(whole)[:-40])
    assert "damaged from here on" in wrong(tmp_path / "cut.tar.gz")[-1]


def test_bombs_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpen.data import readers, tar

    monkeypatch.setattr(readers, "_MAX_UNPACKED", 1 << 20)
    zeros = archive(tmp_path / "x.tar.gz", [("1.txt", b"\0" * (4 << 20))], "w:gz")
    assert wrong(zeros) == [
        "the archive is damaged from here on: more than 1048576 bytes come out of it. '1' is lost."
    ]
    monkeypatch.setattr(tar, "_MOST_MEMBER", 1000)
    path = archive(tmp_path / "y.tar", [("1.txt", b"a" * 1001), ("2.txt", b"b" * 1000)])
    assert wrong(path) == ["'1.txt' has 1001 bytes; 1000 are read."]
    many = archive(tmp_path / "m.tar", [(f"1.{i}", b"") for i in range(1002)])
    assert wrong(many) == ["'1.1000' is one of more than 1000 members of its sample."]
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    told = next(tar_rows("z.tar", io.BytesIO(header.tobuf(tarfile.GNU_FORMAT))))[2]
    assert told == "the archive is damaged from here on: a name or header of 8589934592 bytes."


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_end_in_rows_or_a_reason(data: bytes) -> None:
    found = list(tar_rows("x.tar", io.BytesIO(data)))
    assert all(error is not None for _, _, error, _ in found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6000), st.binary(min_size=1, max_size=8))
def test_a_changed_archive_ends_in_rows_or_a_reason(at: int, change: bytes) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for name, data in SAMPLES:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    raw = bytearray(sink.getvalue())
    raw[at : at + len(change)] = change
    for _, row, error, _ in tar_rows("x.tar", io.BytesIO(bytes(raw))):
        assert (error is None) == bool(row)


def test_operators_read_the_images_of_samples_and_rows_come_back(tmp_path: Path) -> None:
    source = archive(tmp_path / "x.tar.gz", SAMPLES, "w:gz")
    dataset = Dataset.read(source, text_key="txt").apply(
        ops.image_shape(field="png", max_width=1), ops.text_length(min=1)
    )
    result = dataset.write(tmp_path / "out", format="webdataset")
    assert list(read_rows(result.output)) == list(read_rows(source))
    again = dataset.write(tmp_path / "again", format="webdataset", workers=1)
    assert again.sha256 == result.sha256
    with tarfile.open(result.output / "data-00000.tar") as file:
        assert file.getnames()[0] == "a/1.txt"
        member = file.extractfile("a/2.seg.png")
        assert member is not None
        assert member.read() == PNG


def test_operators_hear_the_sounds_of_samples(tmp_path: Path) -> None:
    members = []
    for i, seconds in enumerate((0.25, 2.0)):
        sink = io.BytesIO()
        soundfile.write(sink, np.zeros(int(8000 * seconds)), 8000, format="WAV")
        members += [(f"{i}.wav", sink.getvalue()), (f"{i}.txt", b"a silence")]
    source = archive(tmp_path / "x.tar", members)
    dataset = Dataset.read(source, text_key="txt").apply(ops.audio_duration(field="wav", min=1))
    result = dataset.write(tmp_path / "out", format="webdataset", trace=True)
    assert [row["__key__"] for row in read_rows(result.output)] == ["1"]
    assert result.why(0)[0]["value"] == 0.25


def test_rows_of_any_shape_become_samples(tmp_path: Path) -> None:
    address = ADDRESS + "AAAA"
    rows = [
        {"text": "one", "title": "t", "n": 1, "image": address, "__key__": "k/1"},
        {"text": "two", "json": {"a": None}, "n": 2, "__key__": "k/1"},
        {"text": "three", "__key__": "../out", "class": 3},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = Dataset.read(tmp_path / "in.jsonl").write(
        tmp_path / "out", format="webdataset", shard_bytes=1
    )
    assert sorted(p.name for p in result.output.glob("*.tar")) == [
        f"data-0000{i}.tar" for i in range(3)
    ]
    assert list(read_rows(result.output)) == [
        {"__key__": "k/1", "text": "one", "image.png": address, "json": {"title": "t", "n": 1}},
        {
            "__key__": "000000001",
            "text": "two",
            "json": {"a": None},
            "fields.json": {"n": 2},
        },
        {"__key__": "000000002", "text": "three", "class": 3},
    ]


def test_samples_that_follow_each_other_have_keys_of_their_own(tmp_path: Path) -> None:
    keys = ["000000001", None, None, "b", "b", "c.d", "/e"]
    rows = [{"text": str(i)} | ({} if k is None else {"__key__": k}) for i, k in enumerate(keys)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = Dataset.read(tmp_path / "in.jsonl").write(tmp_path / "out", format="webdataset")
    found = list(read_rows(result.output))
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert [row["__key__"] for row in found] == [
        *("000000001", "000000001-", "000000002", "b", "000000004", "000000005", "000000006")
    ]


def test_no_rows_are_an_archive_of_none(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    result = (
        Dataset.read(tmp_path / "in.jsonl")
        .apply(ops.text_length(min=9))
        .write(tmp_path / "out", format="webdataset")
    )
    assert result.rows_out == 0
    assert [p.name for p in result.output.glob("*.tar")] == ["data-00000.tar"]
    assert list(read_rows(result.output)) == []


def test_a_damaged_archive_is_a_row_of_the_run(tmp_path: Path) -> None:
    whole = archive(tmp_path / "x.tar", SAMPLES).read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[:3000])
    with pytest.raises(DataError, match=r"x\.tar: the archive is damaged"):
        Dataset.read(tmp_path / "x.tar", text_key="txt").write(tmp_path / "out")
    result = Dataset.read(tmp_path / "x.tar", text_key="txt").write(
        tmp_path / "out", on_error="quarantine"
    )
    assert result.operators["read"].dropped == 1
