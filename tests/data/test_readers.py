import bz2
import gzip
import json
import logging
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from sharpen.core.errors import DataError, MissingFileError
from sharpen.data.readers import find_files, locate_rows, read_rows

LINES = b'{"a": 1}\n\n{"a": "\xc3\xa9"}\r\n'


def rows(path: Path, **options: object) -> list[object]:
    return list(read_rows(path, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "X.JSONL"])
def test_lines_are_rows_and_blank_ones_are_none(tmp_path: Path, name: str) -> None:
    raw = gzip.compress(LINES) if name.endswith(".gz") else b"\xef\xbb\xbf" + LINES
    (tmp_path / name).write_bytes(raw)
    assert rows(tmp_path / name) == [{"a": 1}, {"a": "é"}]
    places = [where for where, _ in locate_rows(tmp_path / name)]
    assert places == [f"{tmp_path / name}:1", f"{tmp_path / name}:3"]


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.md").write_text("deep")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "c.jsonl").write_text('{"text": "three"}')
    (tmp_path / "notes.csv").write_text("x")
    assert rows(tmp_path) == [
        {"text": "one\ntwo", "path": "a.txt"},
        {"text": "deep", "path": "z.md"},
        {"text": "three"},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff\xfe", "byte 0 of the line is not UTF-8"),
        (b'{"a": "\xe9"}', "byte 7 of the line is not UTF-8"),
        (b'{"a": ', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", "must be a JSON object, got '\\[1, 2\\]'"),
        (b"null", "must be a JSON object"),
    ],
)
def test_a_bad_line_is_named_or_skipped_and_told(
    tmp_path: Path, line: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}')
    with pytest.raises(DataError, match=rf"x\.jsonl:2: .*{message}.*on_error: skip"):
        rows(path)
    told: list[str] = []
    with caplog.at_level(logging.WARNING, "sharpen.data.readers"):
        assert rows(path, on_error="skip", on_skip=told.append) == [{"a": 1}, {"a": 3}]
    assert len(told) == 1
    assert told[0].startswith(f"{path}:2: ")
    assert told[0] in caplog.text
    assert rows(path, on_error="skip") == [{"a": 1}, {"a": 3}]


def test_a_text_file_that_is_not_utf8_is_named_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    (tmp_path / "b.txt").write_text("fine")
    with pytest.raises(DataError, match=r"a\.txt: byte 2 is not UTF-8"):
        rows(tmp_path)
    assert rows(tmp_path, on_error="skip") == [{"text": "fine", "path": "b.txt"}]


def test_a_damaged_gzip_is_named_with_the_last_good_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    text = b"".join(json.dumps({"n": i * 7919 % 1013}).encode() + b"\n" for i in range(20_000))
    whole = gzip.compress(text)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz:\d+: the file is damaged from"):
        rows(path)
    path.write_bytes(b"not gzip at all")
    with pytest.raises(DataError, match=r"x\.jsonl\.gz:1: the file is damaged"):
        rows(path)
    told: list[str] = []
    assert list(read_rows(path, on_error="skip", on_skip=told.append)) == []
    assert len(told) == 1
    broken = bytearray(whole)
    broken[100:140] = b"\xff" * 40
    path.write_bytes(broken)
    with pytest.raises(DataError, match=r"x\.jsonl\.gz"):
        rows(path)


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.data.readers._MAX_LINE", 20)
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + b" " * 30)
    with pytest.raises(DataError, match=r"x\.jsonl:2: the line is longer than 20 bytes"):
        rows(tmp_path / "x.jsonl")


def test_parquet_rows_come_in_order_with_their_numbers(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "x.parquet"
    expected = [{"text": f"é{i}", "n": [i, None]} for i in range(3000)]
    parquet.write_table(pyarrow.Table.from_pylist(expected), path, row_group_size=700)
    assert rows(path) == expected
    assert [where for where, _ in locate_rows(path)][2999] == f"{path}: row 3000"
    raw = path.read_bytes()
    for damaged in (raw[:100], raw[:-30], b"", b"x" * 50):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a readable Parquet file"):
            rows(path)


def test_an_empty_file_has_no_rows_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"")
    assert rows(tmp_path / "x.jsonl") == []
    with pytest.raises(MissingFileError, match=r"absent\.jsonl"):
        rows(tmp_path / "absent.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="no file of a known kind"):
        find_files(tmp_path / "empty")
    (tmp_path / "x.docx").write_text("a,b")
    with pytest.raises(DataError, match=r"of no known kind; known: \.jsonl"):
        rows(tmp_path / "x.docx")


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", ["", *PACKERS])
def test_files_are_read_however_they_are_packed(tmp_path: Path, packing: str) -> None:
    pack = PACKERS.get(packing, bytes)
    wanted = [{"text": 'größe, "so"\nnew', "n": "1"}, {"text": "", "n": "x"}]
    lines = "".join(json.dumps(row) + "\n" for row in wanted)
    table = 'text,n\n"größe, ""so""\nnew",1\n,x\n'
    for name, content in (
        ("a.jsonl", lines),
        ("a.ndjson", lines),
        ("a.json", json.dumps(wanted)),
        ("a.csv", table),
        ("a.tsv", table.replace("größe, ", "größe; ").replace(",", "\t").replace(";", ",")),
    ):
        path = tmp_path / (name + packing)
        path.write_bytes(pack(content.encode()))
        assert rows(path) == wanted, name
        if packing and len(path.read_bytes()) > 40:
            path.write_bytes(path.read_bytes()[:-20])
            with pytest.raises(DataError, match=name):
                rows(path)
    (tmp_path / f"page.md{packing}").write_bytes(pack(b"# Title\r\n"))
    (page,) = rows(tmp_path / f"page.md{packing}")
    assert page["text"] == "# Title\n"


def test_rows_of_tables_and_documents_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,2\n1\n1,2,3\n\xff,2\n")
    told: list[str] = []
    assert list(read_rows(path, on_error="skip", on_skip=told.append)) == [{"a": "1", "b": "2"}]
    assert [one.split(": ", 1)[1] for one in told] == [
        "row 2: 1 values for 2 names.",
        "row 3: 3 values for 2 names.",
        "row 4: it is not UTF-8.",
    ]
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, 5]')
    with pytest.raises(DataError, match="row 2: a row must be an object, got 5"):
        rows(path)
    path.write_text('{"a": 1}')
    assert rows(path) == [{"a": 1}]
    path.write_text('{"a": ')
    with pytest.raises(DataError, match="not valid JSON"):
        rows(path)


def test_a_line_that_is_too_long_is_left_out_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharpen.data.readers._MAX_LINE", 100)
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 350 + '"}\n{"a": 2}\n')
    told: list[str] = []
    assert list(read_rows(path, on_error="skip", on_skip=told.append)) == [{"a": 1}, {"a": 2}]
    assert "x.jsonl:2: the line is longer than 100 bytes" in told[0]


def saved(folder: Path, names: list[str], **state: object) -> None:
    """A data set as ``datasets`` saves it: streams of Arrow, their names in ``state.json``."""
    folder.mkdir(parents=True)
    for name in names:
        table = pa.table({"text": [f"{name} {i}" for i in range(3)]})
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=2)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, **state}))
    (folder / "dataset_info.json").write_text("{}")


def test_data_sets_of_hugging_face_are_read_in_their_order(tmp_path: Path) -> None:
    names = ["data-1.arrow", "data-0.arrow"]
    saved(tmp_path / "plain", names)
    assert rows(tmp_path / "plain") == [{"text": f"{name} {i}"} for name in names for i in range(3)]
    saved(tmp_path / "chosen", names, _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(DataError, match="call flatten_indices"):
        rows(tmp_path / "chosen")
    saved(tmp_path / "both" / "train", names)
    saved(tmp_path / "both" / "test", names)
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"has the splits train, test: name one, such as .*/train"):
        rows(tmp_path / "both")
    assert len(rows(tmp_path / "both" / "test")) == 6


def test_ranges_of_numbers_are_patterns(tmp_path: Path) -> None:
    for i in (8, 9, 10):
        (tmp_path / f"a-{i:03d}.jsonl").write_text(json.dumps({"n": i}))
    assert rows(tmp_path / "a-{008..010}.jsonl") == [{"n": 8}, {"n": 9}, {"n": 10}]
    with pytest.raises(MissingFileError, match="a-011"):
        rows(tmp_path / "a-{008..011}.jsonl")
