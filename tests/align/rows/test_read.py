import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.align.rows import as_kind, read_feedback
from sharpen.core.errors import DataError, MissingFileError


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows))
    return path


def test_rows_are_read_with_their_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", {"prompt": "a", "completion": "b"}, "\n", {"prompt": "x"})
    with pytest.raises(DataError, match=r"d\.jsonl:3: the key 'completion' is missing"):
        read_feedback(file)
    rows = read_feedback(file, limit=1)
    assert [row.where for row in rows.rows] == [f"{file}:1"]
    assert rows.kind == "completion"


def test_packed_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"prompt": "a", "n": 1}\n{"prompt": "b", "n": 2}\n'))
    assert [row.meta["n"] for row in read_feedback(file).rows] == [1, 2]


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    good = {"prompt": "a", "completion": "b"}
    bad = [
        {"prompt": "a", "completion": ""},
        {"completion": "b"},
        {"prompt": "", "completion": "b"},
    ]
    file = write(tmp_path / "d.jsonl", good, "{oops\n", *bad, bad[0], good)
    with pytest.raises(DataError, match=r"d\.jsonl:2: not valid JSON.*--skip-bad"):
        read_feedback(file)
    found = read_feedback(file, skip_bad=True)
    assert len(found) == 2
    assert found.skipped == {
        "unreadable": 1,
        "'completion': empty": 2,
        "no 'prompt'": 1,
        "'prompt': empty": 1,
    }


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_feedback(tmp_path / "none.jsonl")
    file = write(tmp_path / "d.jsonl", {"prompt": ""})
    with pytest.raises(DataError, match="1 bad rows were skipped"):
        read_feedback(file, skip_bad=True)


def test_rows_become_the_kind_a_method_needs(tmp_path: Path) -> None:
    pairs = write(tmp_path / "p.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c", "id": 7})
    labels = read_feedback(pairs, kind="label").rows
    assert [(row.completions, row.label) for row in labels] == [(("b",), True), (("c",), False)]
    assert labels[1].meta == {"id": 7}
    assert read_feedback(pairs, kind="completion").rows[0].completions == ("b",)
    assert read_feedback(pairs, kind="prompt").rows[0].completions == ()
    ranked = read_feedback(pairs, kind="ranked").rows[0]
    assert (ranked.completions, ranked.scores) == (("b", "c"), (1.0, 0.0))

    query = {"query": "q", "responses": ["x", "y", "z"], "scores": [0, 3, 1]}
    tie = {"query": "q", "responses": ["x", "y"], "scores": [1, 1]}
    rows = read_feedback(write(tmp_path / "r.jsonl", query, tie))
    assert as_kind(rows.rows, "completion")[0].completions == ("y",)
    assert [row.completions for row in as_kind(rows.rows, "preference")] == [("y", "x")]
    with pytest.raises(DataError, match=r"no row of 'ranked' can become 'preference'"):
        as_kind(rows.rows[1:], "preference")
    with pytest.raises(DataError, match=r"'ranked' cannot become 'label'.*or preference"):
        as_kind(rows.rows, "label")
