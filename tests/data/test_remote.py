"""Files at addresses, read and written: in memory, and from a server of this machine."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharpen.core.errors import (
    ConfigError,
    DataError,
    DependencyNotInstalled,
    ExecutionError,
    MissingFileError,
    StorageError,
)
from sharpen.data import Dataset, ops, remote
from sharpen.data.process import load_data_recipe
from sharpen.data.readers import read_rows
from sharpen.data.remote import RemoteFile, remote_files, upload


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a server that shows it and cannot send parts of files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def lines(count: int, start: int = 0) -> bytes:
    rows = ({"text": f"text number {i} " * 40, "n": i} for i in range(start, start + count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_files_folders_and_patterns_are_read(memory: Any) -> None:
    memory.pipe("/c/a.jsonl", lines(3))
    memory.pipe("/c/b.jsonl.gz", gzip.compress(lines(2, 3)))
    memory.pipe("/c/deep/c.csv", b"text,n\nlast,9\n")
    memory.pipe("/c/notes.pdf", b"none of ours")
    numbers = [row["n"] for row in read_rows("memory://c/")]
    assert numbers == [0, 1, 2, 3, 4, "9"]
    assert [row["n"] for row in read_rows("memory://c/*.jsonl*")] == [0, 1, 2, 3, 4]
    assert [row["n"] for row in read_rows("memory://c/a.jsonl")] == [0, 1, 2]
    table = pa.table({"text": ["x", "y"], "when": pa.array([1, 2], pa.date32())})
    with memory.open("/c/t.parquet", "wb") as file:
        pq.write_table(table, file)
    result_rows = [row["when"].year for row in read_rows("memory://c/t.parquet")]
    assert result_rows == [1970, 1970]


def test_a_saved_data_set_at_an_address_is_read_in_its_order(memory: Any) -> None:
    names = ["data-1.arrow", "data-0.arrow"]
    for name in names:
        table = pa.table({"text": [name]})
        with (
            memory.open(f"/hf/{name}", "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    files = [{"filename": name} for name in names]
    memory.pipe("/hf/state.json", json.dumps({"_data_files": files}).encode())
    memory.pipe("/hf/dataset_info.json", b"{}")
    assert [row["text"] for row in read_rows("memory://hf")] == names
    memory.pipe("/hf/deep/manifest.json", b'{"counted": {}, "files": {"data-9": ""}}')
    assert [row["text"] for row in read_rows("memory://hf/")] == names
    memory.rm("/hf/data-0.arrow")
    with pytest.raises(MissingFileError, match=r"memory://hf lacks data-0\.arrow"):
        list(read_rows("memory://hf"))
    memory.pipe("/both/dataset_dict.json", b'{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"splits train, test: name one, such as memory://both/t"):
        list(read_rows("memory://both"))


def test_a_server_without_parts_is_read_to_the_end(served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "big.jsonl").write_bytes(lines(12_000))  # more than a block of fsspec's
    for i in range(2):
        (folder / f"part-0{i}.jsonl.gz").write_bytes(gzip.compress(lines(2, 2 * i)))
    pq.write_table(pa.table({"text": ["x", "y"]}), folder / "t.parquet")
    assert sum(1 for _ in read_rows(f"{address}/big.jsonl")) == 12_000
    assert len(list(read_rows(f"{address}/big.jsonl?token=a.b"))) == 12_000
    assert [r["n"] for r in read_rows(f"{address}/part-{{00..01}}.jsonl.gz")] == [0, 1, 2, 3]
    assert [row["text"] for row in read_rows(f"{address}/t.parquet")] == ["x", "y"]


def test_a_run_reads_an_address_and_knows_when_the_file_changed(
    memory: Any, tmp_path: Path
) -> None:
    memory.pipe("/in.jsonl", lines(30))
    dataset = Dataset.read("memory://in.jsonl").apply(ops.text_length(min=5))
    first = dataset.write(tmp_path / "out")
    assert (first.rows_in, first.cached) == (30, False)
    assert (
        Dataset.read("memory://in.jsonl")
        .apply(ops.text_length(min=5))
        .write(tmp_path / "out")
        .cached
    )
    local = tmp_path / "in.jsonl"
    local.write_bytes(lines(30))
    same = Dataset.read(local).apply(ops.text_length(min=5)).write(tmp_path / "local")
    assert same.sha256 == first.sha256
    memory.pipe("/in.jsonl", lines(31))
    again = Dataset.read("memory://in.jsonl").apply(ops.text_length(min=5))
    assert again.write(tmp_path / "out", overwrite=True).rows_in == 31


def test_a_result_is_copied_to_an_address_manifest_last(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines(20))
    recipe: dict[str, Any] = {
        "sharpen": 1,
        "data": {
            "source": {"path": str(tmp_path / "in.jsonl")},
            "output": {
                "path": str(tmp_path / "out"),
                "upload": "memory://bucket/clean",
                "shard_bytes": 4000,
            },
        },
    }
    result = load_data_recipe(recipe).run()
    sent = {p.removeprefix("/bucket/clean/") for p in memory.find("/bucket/clean")}
    here = {p.relative_to(result.output).as_posix() for p in result.output.rglob("*.*")}
    assert sent == here
    assert [row["n"] for row in read_rows("memory://bucket/clean/data-*.jsonl")] == [*range(20)]
    assert [row["n"] for row in read_rows("memory://bucket/clean")] == [*range(20)]
    assert not upload(result.output, "memory://bucket/clean")
    recipe["data"] |= {"limit": 2}
    fewer = load_data_recipe(recipe).run(overwrite=True)
    assert len(memory.glob("/bucket/clean/data-*")) == len(list(fewer.output.glob("data-*"))) < 5


def test_what_is_not_there_or_not_installed_is_said(
    memory: Any, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingFileError, match=r"there is no memory://gone\.jsonl"):
        list(read_rows("memory://gone.jsonl"))
    with pytest.raises(MissingFileError, match="no file at memory://"):
        remote_files("memory://gone/*.jsonl")
    with pytest.raises(MissingFileError, match="there is no http"):
        list(read_rows(f"{served[1]}/gone.jsonl"))
    with pytest.raises(ConfigError, match="nosuchkind"):
        list(read_rows("nosuchkind://a.jsonl"))
    with pytest.raises(DependencyNotInstalled, match=r"gs:// needs another package.*gcsfs"):
        list(read_rows("gs://bucket/a.jsonl"))
    monkeypatch.setattr(remote.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyNotInstalled, match=r"sharpen\[remote\]"):
        list(read_rows("memory://a.jsonl"))


def test_a_broken_connection_ends_the_run_and_is_no_damage(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "a.jsonl").write_bytes(lines(5000))

    def cut(self: Any, source: Any, output: Any) -> None:
        output.write(source.read(100_000))
        output.flush()
        self.close_connection = True

    monkeypatch.setattr(_Quiet, "copyfile", cut)
    with pytest.raises(ExecutionError, match=r"a\.jsonl: .*The same command goes on"):
        list(read_rows(f"{address}/a.jsonl", on_error="skip"))


def test_what_cannot_be_written_leaves_the_result_here(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    memory.pipe("/taken", b"a file")
    with pytest.raises(StorageError, match="The result is whole in"):
        upload(tmp_path, "http://127.0.0.1:9/x")


def test_the_version_is_the_hash_where_nothing_is_told(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/a.jsonl", b"one")
    monkeypatch.setattr(remote, "_VERSIONS", ())
    file = RemoteFile("memory://a.jsonl")
    first = file.version()
    memory.pipe("/a.jsonl", b"two")
    assert len(first[1]) == 64
    assert file.version() != first
