"""``sharpen data``: the example recipe, and what is asked of its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(build_app(["data"]), ["data", *arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def text(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(build_app(["data"]), ["data", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def folder(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the example and its rows."""
    for name in ("web_text.yaml", "web_text.jsonl"):
        shutil.copy(repository / "examples" / "data" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_is_cleaned_and_every_row_accounted_for(folder: Path) -> None:
    first = call("run", "web_text.yaml")
    assert first["rows_in"] == 26
    assert first["rows_in"] == first["rows_out"] + first["rows_dropped"]
    assert first["rows_out"] == 14
    assert not first["cached"]
    dropped = pq.read_table(folder / first["output"] / "trace" / "dropped.parquet")
    assert dropped.num_rows == first["rows_dropped"] == first["rows_traced"]
    kept = (folder / first["output"] / "data-00000.jsonl").read_text().splitlines()
    assert len(kept) == first["rows_out"]
    assert not {row["url"] for row in map(json.loads, kept)} & {"https://spam.example/"}
    assert "Why rows went" in Path(first["report"]).read_text()
    again = call("run", "web_text.yaml")
    assert again["cached"]
    assert again["sha256"] == first["sha256"]
    elsewhere = call("run", "web_text.yaml", "--output", "b", "--workers", "1")
    assert elsewhere["sha256"] == first["sha256"]
    assert "holds something else" in text("run", "web_text.yaml", "data.limit=5", code=2)
    shown = text("run", "web_text.yaml", "data.limit=5", "--overwrite")
    assert "5 of 5 rows are left (100.0%)" in shown


def test_why_a_row_went_is_told(folder: Path) -> None:
    call("run", "web_text.yaml")
    (event,) = call("why", "clean/web-text", "14")["events"]
    assert (event["operator"], event["kept_id"]) == ("exact_dedup", "2")
    assert "dropped by minhash_dedup: statistic similarity" in text("why", "clean/web-text", "15")
    traced = call("trace", "clean/web-text", "--operator", "minhash_dedup", "--limit", "2")
    assert traced["dropped"]["minhash_dedup"] == 4
    assert [row["operator"] for row in traced["rows"]] == ["minhash_dedup"] * 2
    assert "similarity" in text("trace", "clean/web-text")
    assert "has no trace" in text("why", "web_text.yaml", "1", code=2)


def test_a_recipe_is_explained_before_it_runs(folder: Path) -> None:
    found = call("explain", "web_text.yaml")
    names = [step["operator"] for step in found["steps"]]
    given = call("explain", "web_text.yaml", "data.order=given")
    assert sorted(names) == sorted(step["operator"] for step in given["steps"])
    assert names[:4] == ["fix_unicode", "clean_links", "clean_email", "whitespace_normalization"]
    assert names[-2:] == ["exact_dedup", "minhash_dedup"]
    assert all(step["passed"] is None or 0 <= step["passed"] <= 1 for step in found["steps"])
    assert not Path("clean").exists()
    assert "minhash_dedup" in text("explain", "web_text.yaml")


def test_operators_are_listed_with_their_arguments() -> None:
    rows = call("ops")
    assert len({row["name"] for row in rows}) == len(rows) > 18
    assert all(row["summary"] for row in rows)
    missing = [(r["name"], a["name"]) for r in rows for a in r["arguments"] if not a["meaning"]]
    assert not missing
    (one,) = call("ops", "text_length")
    low = next(a for a in one["arguments"] if a["name"] == "min")
    assert (low["default"], low["required"], low["type"]) == (10, False, "float")
    assert "Did you mean 'text_length'" in text("ops", "text_lenth", code=2)
    assert {row["kind"] for row in call("ops", "--kind", "deduplicator")} == {"deduplicator"}
    assert "there is no kind 'dedup'" in text("ops", "--kind", "dedup", code=2)


def test_duplicates_are_found_without_a_recipe(folder: Path) -> None:
    near = call("dedup", "web_text.jsonl", "-o", "near", "--verify", "exact")
    exact = call("dedup", "web_text.jsonl", "-o", "exact", "--threshold", "1")
    assert (exact["rows_dropped"], near["rows_dropped"]) == (1, 3)
    assert "keep='last' must be" in text(
        "dedup", "web_text.jsonl", "-o", "x", "--keep", "last", code=2
    )


def test_what_cannot_be_read_ends_or_is_counted(folder: Path) -> None:
    path = folder / "web_text.jsonl"
    path.write_bytes(path.read_bytes() + b'{"text": "cut off\n{"text": "\xff"}\n')
    assert "web_text.jsonl:27" in text("run", "web_text.yaml", "--on-error", "fail", code=2)
    assert not Path("clean/web-text").exists()
    found = call("run", "web_text.yaml", "--on-error", "skip")
    assert (found["rows_in"], found["operators"]["read"]["rows_out"]) == (28, 26)
    assert found["rows_in"] == found["rows_out"] + found["rows_dropped"]


def test_a_corpus_is_analyzed(folder: Path) -> None:
    found = call("analyze", "web_text.jsonl", "-o", "an", "--keep", "0.5")
    assert found["rows"] == 26
    assert Path(found["report"]).exists()
    assert abs(found["kept_by_all"] - 0.5) < 0.5
    assert "keep_0.5" in found["suggested"]
    assert "is there already" in text("analyze", "web_text.jsonl", "-o", "an", code=2)
    best = call("hpo", "an", "--quality", "stopwords", "--trials", "20")
    assert best["trials"] == 20
    assert "of the rows are kept" in text("hpo", "an", "--quality", "stopwords", "--trials", "5")
    shown = text("analyze", "web_text.yaml", "-o", "an", "--overwrite", "--keep", "0.9")
    assert "to keep 0.9" in shown


def test_a_recipe_of_data_juicer_is_translated_and_runs(folder: Path) -> None:
    Path("dj.yaml").write_text(
        "project_name: mine\ndataset_path: web_text.jsonl\nexport_path: out/rows.jsonl\n"
        "process:\n  - clean_links_mapper:\n  - text_length_filter: {min_len: 60}\n"
        "  - video_aesthetics_filter: {min_score: 0.4}\n"
        "  - document_minhash_deduplicator: {jaccard_threshold: 0.7}\n"
    )
    found = call("import-recipe", "dj.yaml", "-o", "ours.yaml")
    assert [one["where"] for one in found["left_out"]] == ["process[2].video_aesthetics_filter"]
    result = call("run", "ours.yaml", "--output", "clean")
    assert result["rows_in"] == 26
    assert result["operators"]["minhash_dedup"]["rows_out"] == result["rows_out"] < 26
    assert "is there already" in text("import-recipe", "dj.yaml", "-o", "ours.yaml", code=2)
    assert "left out: process[2]" in text("import-recipe", "dj.yaml")


def test_two_results_are_compared(folder: Path) -> None:
    call("run", "web_text.yaml", "-o", "first")
    call("run", "web_text.yaml", "data.process.4.text_length.min=500", "-o", "b")
    found = call("diff", "first", "b", "--html", "diff.html")
    assert found["matched_by"] == "the row of the source"
    assert found["only"]["a"] > 0
    assert "only in A" in text("diff", "first", "b", "--no-statistics")
    assert "Only in A" in (folder / "diff.html").read_text()
    assert call("diff", "first", "first")["same"] == found["rows"]["a"]


def test_the_first_bad_rows_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ['{"text": "fine"}', "{", '{"n": 1}', *["["] * 5]
    Path("in.jsonl").write_text("\n".join(lines))
    Path("r.yaml").write_text("sharpen: 1\ndata:\n  source: {path: in.jsonl}\n  on_error: skip\n")
    found = call("run", "r.yaml")["first_bad_rows"]
    assert len(found) == 5
    assert found[1] == f"{tmp_path}/in.jsonl:3: the key 'text' is missing; found: n."
    assert "7 rows could not be read, the first of them" in text("run", "r.yaml")
