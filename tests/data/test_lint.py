"""What the sources of a recipe hold, and the first rows that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.data.lint import lint, sources_of


def test_fields_types_and_the_first_bad_rows_are_told(tmp_path: Path) -> None:
    good = [{"text": "ab", "n": 1}, {"text": "é", "n": 2.5, "tags": []}, {"text": "", "n": None}]
    lines = [json.dumps(row) for row in good] + ["{", '{"n": 3}', '{"text": 5}', *["["] * 4]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    pq.write_table(pa.table({"text": ["x", "y"], "k": pa.array([1, None])}), tmp_path / "b.parquet")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "sharpen: 1\ndata:\n  source:\n    mix:\n"
        "      - {path: a.jsonl, weight: 2}\n      - {path: b.parquet, weight: 1}\n"
    )
    first, second = lint(*sources_of(str(recipe)))
    assert (first.name, first.weight, first.rows, first.bad) == ("a.jsonl", 2, 3, 7)
    assert first.characters == 3
    path = tmp_path / "a.jsonl"
    assert [told.split(": ")[0] for told in first.first_bad] == [f"{path}:{n}" for n in range(4, 9)]
    assert "'text' must be text, got 5" in first.first_bad[2]
    assert first.fields == {
        "text": {"text": 3},
        "n": {"integer": 1, "number": 1, "null": 1},
        "tags": {"list": 1},
    }
    assert (second.rows, second.bad, second.fields["k"]) == (2, 0, {"int64": 1, "null": 1})


def test_bad_rows_are_an_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n')
    assert CliRunner().invoke(build_app(["data"]), ["data", "lint", str(path)]).exit_code == 0
    path.write_text('{"text": "x"}\n{\n')
    done = CliRunner().invoke(build_app(["data"]), ["data", "lint", str(path), "--json"])
    assert done.exit_code == 1
    (one,) = json.loads(done.stdout)["sources"]
    assert (one["rows"], one["bad"]) == (1, 1)
