"""Recipes for data: what is kept, why the rest went, and that nothing but the rows decides."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.data import Dataset, ops
from sharpen.data.batch import Batch
from sharpen.data.ops import Annotator, OneOf
from sharpen.data.ordering import choose_order
from sharpen.data.sources import FileSource

PROSE = "The sea was calm and the two of them had been on it for a week with no wind at all. "


def rows(count: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    words = ["the", "and", "sea", "of", "wind", "calm", "ship", "12", "--", "red", "Ω"]
    words += ["Straße", "ἀγορά", "日本", "http://a.example/x"]
    found = []
    for i in range(count):
        text = " ".join(rng.choices(words, k=rng.randrange(0, 80)))
        if rng.random() < 0.2 and found:
            text = rng.choice(found)["text"]
        elif rng.random() < 0.1:
            text = "again and again " * 30
        found.append({"n": i, "text": text, "meta": {"source": ["a", "b"][i % 2], "deep": [i]}})
    return found


def write_rows(path: Path, given: list) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in given]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def recipe(source: FileSource) -> Dataset:
    return Dataset(source).apply(
        ops.clean_links(),
        ops.text_length(min=20),
        ops.character_repetition(max=0.2, size=5),
        ops.exact_dedup(),
        ops.whitespace_normalization(),
        ops.words_num(min=8),
        ops.stopwords(min=0.1),
    )


def slow_recipe(given: list[dict]) -> tuple[dict[int, str], dict[int, str]]:
    """What is left by row, and the operator that dropped each other row."""
    from sharpen.data.ops.filters.words import STOPWORDS
    from sharpen.data.statistics import refine

    link = re.compile(r"http://\S*[^\s.,;:!?]")
    kept, gone, seen = {}, {}, {}
    for n, row in enumerate(given):
        text = link.sub("", row["text"])
        grams = [text[i : i + 5] for i in range(len(text) - 4)]
        counts = sorted((grams.count(g) for g in set(grams)), reverse=True)
        repeated = sum(c > 1 for c in counts)
        most = min(int(len(counts) ** 0.5), repeated)
        if len(text) < 20:
            gone[n] = "text_length"
        elif sum(counts[:most]) / max(len(grams), 1) > 0.2:
            gone[n] = "character_repetition"
        elif text in seen:
            gone[n] = "exact_dedup"
        else:
            seen[text] = n
            text = text.strip()
            words = [w for w in map(refine, re.split("[ \n\t]", text)) if w]
            if len(words) < 8:
                gone[n] = "words_num"
            elif sum(w in STOPWORDS for w in words) / len(words) < 0.1:
                gone[n] = "stopwords"
            else:
                kept[n] = text
    return kept, gone


def read_output(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("data-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def hashes(folder: Path, pattern: str = "data-*") -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob(pattern)}


@pytest.mark.parametrize("native", ["1", "0"])
def test_a_recipe_keeps_what_a_slow_one_keeps_and_says_why_the_rest_went(
    tmp_path, monkeypatch, native
):
    if native == "0":
        monkeypatch.setenv("SHARPEN_NATIVE", "0")
    given = rows(300)
    path = write_rows(tmp_path / "in.jsonl", given)
    result = recipe(FileSource(path, rows=64)).write(tmp_path / "out", trace=True, order="given")
    kept, gone = slow_recipe(given)
    assert {"words_num", "text_length", "character_repetition", "exact_dedup"} <= set(gone.values())
    found = read_output(tmp_path / "out")
    assert {row["n"]: row["text"] for row in found} == kept
    assert [row["n"] for row in found] == sorted(kept)
    assert all({**row, "text": given[row["n"]]["text"]} == given[row["n"]] for row in found)
    dropped = pq.read_table(tmp_path / "out" / "trace" / "dropped.parquet").to_pylist()
    assert {int(row["id"]): row["operator"] for row in dropped} == gone
    assert len(dropped) == result.rows_dropped == len(gone)
    assert result.rows_in + result.rows_made == result.rows_out + result.rows_dropped
    for row in dropped:
        if row["operator"] == "exact_dedup":
            assert int(row["kept_id"]) < int(row["id"])
        else:
            way, limit = row["threshold"].split("=")
            assert row["value"] < float(limit) if way == "min" else row["value"] > float(limit)
    edited = pq.read_table(tmp_path / "out" / "trace" / "edited.parquet").to_pylist()
    links = {n for n, row in enumerate(given) if "http" in row["text"]}
    assert {int(row["id"]) for row in edited if row["operator"] == "clean_links"} == links
    assert result.rows_edited == len(edited)
    one = next(n for n, why in gone.items() if why == "text_length")
    assert result.why(one)[-1]["operator"] == "text_length"


def test_batches_and_threads_do_not_change_the_bytes(tmp_path):
    path = write_rows(tmp_path / "in.jsonl.gz", rows(500))
    told = []
    for i, (size, workers) in enumerate([(1, 1), (7, 2), (4096, 1), (100, 3)]):
        out = tmp_path / f"out{i}"
        result = recipe(FileSource(path, rows=size)).write(out, trace=True, workers=workers)
        tables = [pq.read_table(out / "trace" / f"{n}.parquet") for n in ("dropped", "edited")]
        ids = [sorted(t.column("id").to_pylist()) for t in tables]
        told.append((hashes(out), ids, result.rows_out, result.rows_dropped))
    assert told[1:] == told[:-1]


def test_filters_move_before_others_that_cost_more_and_keep_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_rows(tmp_path / "in.jsonl", rows(400))
    filters = [
        ops.character_repetition(max=0.9, size=3),  # dear, and drops next to nothing
        ops.word_repetition(max=0.9, size=2),
        ops.text_length(min=150),  # cheap, and drops many
        ops.words_num(min=5),
    ]
    batch = next(iter(FileSource(path))).rows
    order = choose_order([*filters, ops.clean_links(), ops.text_length(min=1)], batch)
    assert order[0] == 2
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert order[4:] == [4, 5]
    told = []
    for i, order in enumerate(("given", "auto", "auto")):
        for turn in (filters, filters[::-1]):
            out = tmp_path / f"{i}{turn is filters}"
            result = Dataset.read(path).apply(*turn).write(out, trace=True, order=order)
            told.append(result.sha256)
        assert result.rows_in == result.rows_out + result.rows_dropped
    assert len(set(told)) == 1
    first, again = (hashes(tmp_path / f"{i}True" / "trace", "*") for i in (1, 2))
    assert first == again


def test_a_second_call_is_a_hit_and_another_recipe_is_refused(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows(50))
    first = recipe(FileSource(path)).write(tmp_path / "out")
    again = recipe(FileSource(path)).write(tmp_path / "out")
    assert (first.cached, again.cached) == (False, True)
    assert again.operators == first.operators
    other = Dataset.read(path).apply(ops.text_length(min=5))
    with pytest.raises(ConfigError, match="holds something else"):
        other.write(tmp_path / "out")
    assert read_output(tmp_path / "out")
    replaced = other.write(tmp_path / "out", overwrite=True)
    assert replaced.rows_out == len(read_output(tmp_path / "out"))
    write_rows(path, rows(50, seed=1))
    with pytest.raises(ConfigError, match="holds something else"):
        other.write(tmp_path / "out")


def test_rows_that_cannot_be_read_are_named_or_left_out(tmp_path):
    given = [
        {"text": PROSE},
        "not json",
        {"other": 1},
        {"text": 5},
        '{"text": "half \\ud800"}',
        {"text": PROSE + "!"},
        "[1]",
    ]
    path = write_rows(tmp_path / "in.jsonl", given)
    ds = Dataset.read(path).apply(ops.text_length(min=1))
    with pytest.raises(DataError, match=r"in.jsonl:2: not valid JSON.*on_error=skip"):
        ds.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = ds.write(tmp_path / "out", on_error="skip", trace=True)
    assert (result.rows_in, result.rows_out, result.rows_dropped) == (7, 2, 5)
    reasons = [result.why(i)[0]["reason"] for i in (1, 2, 3, 4, 6)]
    for reason, words in zip(
        reasons,
        (
            "not valid JSON",
            "key 'text' is missing; found: other",
            "must be text, got 5",
            "half a surrogate pair",
            "must be a JSON object",
        ),
        strict=True,
    ):
        assert words in reason


def test_texts_inside_objects_come_back_to_their_place(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", [{"a": {"b": PROSE, "c": 1}, "d": 2}])
    Dataset.read(path, text_key="a.b").apply(ops.replace_content(pattern="sea", repl="lake")).write(
        tmp_path / "out"
    )
    assert read_output(tmp_path / "out") == [
        {"a": {"b": PROSE.replace("sea", "lake"), "c": 1}, "d": 2}
    ]


def test_statistics_stay_with_the_rows_when_asked(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", [{"text": PROSE}, {"text": "ab " * 9}])
    ds = Dataset.read(path).apply(ops.text_length(min=1), ops.words_num(min=1))
    ds.write(tmp_path / "out", keep_statistics=True)
    assert [row["stats"] for row in read_output(tmp_path / "out")] == [
        {"text_length": len(PROSE), "words_num": 21},
        {"text_length": 27, "words_num": 9},
    ]
    ds.write(tmp_path / "columns", format="parquet")
    found = pq.read_table(tmp_path / "columns" / "data-00000.parquet").to_pylist()
    assert found == [{"text": PROSE}, {"text": "ab " * 9}]


def test_columns_of_parquet_come_out_as_they_went_in(tmp_path):
    when = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "when": pa.array([when] * 4),
            "body": pa.array(["one two", None, "three", b"\xff".decode("latin1")], pa.string()),
            "picture": pa.array([b"\x00\xff"] * 4),
            "n": pa.array([1, 2, 3, 4], pa.int8()),
        }
    )
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, row_group_size=3)
    ds = Dataset.read(path, text_key="body").apply(ops.text_length(min=1), ops.exact_dedup())
    with pytest.raises(DataError, match=r"in.parquet: row 2: 'body' is null"):
        ds.write(tmp_path / "strict", format="parquet")
    result = ds.write(tmp_path / "out", format="parquet", on_error="skip", keep_statistics=True)
    found = pq.read_table(tmp_path / "out" / "data-00000.parquet")
    assert found.drop_columns(["stats", "body"]).equals(
        table.drop_columns(["body"]).take(pa.array([0, 2, 3]))
    )
    assert found.column("body").to_pylist() == ["one two", "three", "ÿ"]
    assert found.column("stats").to_pylist() == [{"text_length": n} for n in (7, 5, 1)]
    assert (result.rows_in, result.rows_out, result.rows_dropped) == (4, 3, 1)
    with pytest.raises(DataError, match=r"bytes.*Write format=parquet"):
        ds.write(tmp_path / "json", on_error="skip")
    assert not (tmp_path / "json").exists()
    with pytest.raises(DataError, match="the column 'text' is missing; found: when, body"):
        Dataset.read(path).write(tmp_path / "else")


def test_texts_of_columns_that_are_not_utf8_are_told_apart(tmp_path):
    texts = [b"fine", b"\xff\xfe", "größe".encode()]
    raw = pa.array(texts, pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": column}), tmp_path / "in.parquet")
    result = Dataset.read(tmp_path / "in.parquet").write(
        tmp_path / "out", on_error="quarantine", trace=True
    )
    assert [row["text"] for row in read_output(tmp_path / "out")] == ["fine", "größe"]
    assert result.why(1)[0]["reason"].endswith("row 2: 'text' is not UTF-8.")


def test_what_fails_is_kept_in_quarantine(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", [{"text": PROSE}, "{broken", {"n": 1}])
    result = Dataset.read(path).write(tmp_path / "out", on_error="quarantine")
    found = [
        json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    ]
    assert [(one["id"], one["operator"]) for one in found] == [("1", "read"), ("2", "read")]
    assert found[0]["row"] == "{broken\n"
    assert "not valid JSON" in found[0]["error"]
    assert (result.rows_in, result.rows_out, result.rows_dropped) == (3, 1, 2)
    assert result.operators["read"].rows_in == 3
    assert "3 rows were read" in result.report.read_text()


def test_a_row_that_makes_an_operator_fail_is_named_or_left_out(tmp_path):
    from dataclasses import dataclass

    from sharpen.data.ops.base import Mapper

    @dataclass(frozen=True, kw_only=True)
    class Picky(Mapper):
        name = "picky"

        def edit(self, batch):
            import pyarrow as pa

            if any("bad" in text for text in batch.texts.strings):
                raise ValueError("cannot stand it")
            return pa.array([text.upper() for text in batch.texts.strings])

    path = write_rows(tmp_path / "in.jsonl", [{"text": t} for t in ("fine", "bad", "good")])
    ds = Dataset.read(path).apply(Picky())
    with pytest.raises(DataError, match="'picky' failed on row 1: ValueError: cannot stand it"):
        ds.write(tmp_path / "out")
    result = ds.write(tmp_path / "out", on_error="skip", trace=True)
    assert [row["text"] for row in read_output(tmp_path / "out")] == ["FINE", "GOOD"]
    assert result.why(1)[0]["reason"] == "ValueError: cannot stand it"
    assert result.operators["picky"].failed == 1


def test_arguments_out_of_range_and_patterns_that_could_hang_are_refused():
    with pytest.raises(ConfigError, match="min=5 must not be above max=1"):
        ops.text_length(min=5, max=1)
    with pytest.raises(ConfigError, match="not one of RE2"):
        ops.replace_content(pattern=r"(a)\1")
    with pytest.raises(ConfigError, match=r"no operator 'text_lenght'. Did you mean 'text_length'"):
        ops.make_operator("text_lenght", {})
    with pytest.raises(ConfigError, match=r"text_length: .*minimum.*"):
        ops.make_operator("text_length", {"minimum": 5})
    with pytest.raises(ConfigError, match=r"is no operator; call it"):
        Dataset.read(__file__).apply(ops.text_length)


def test_an_empty_result_is_an_empty_file(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", [{"text": "short"}])
    result = (
        Dataset.read(path)
        .apply(ops.text_length(min=99), ops.exact_dedup())
        .write(tmp_path / "out", trace=True)
    )
    assert result.rows_out == 0
    assert read_output(tmp_path / "out") == []


RUN = """
import sys
from sharpen.data import Dataset, ops
from sharpen.data.sources import FileSource
ds = Dataset(FileSource(sys.argv[1], rows=20)).apply(
    ops.clean_links(), ops.text_length(min=20), ops.character_repetition(max=0.2, size=5),
    ops.exact_dedup(), ops.whitespace_normalization(), ops.words_num(min=8),
    ops.stopwords(min=0.1))
ds.write(sys.argv[2], trace=True, workers=2)
"""


@pytest.mark.slow
def test_killed_at_any_time_it_ends_in_the_same_bytes(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows(3000))
    recipe(FileSource(path, rows=20)).write(tmp_path / "calm", trace=True, workers=1)
    rng = random.Random(0)
    out = tmp_path / "out"
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen([sys.executable, "-c", RUN, str(path), str(out)])
        deadline = time.monotonic() + 0.6 + 0.15 * attempt + rng.random() * 0.2
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            assert not out.exists() or (out / "manifest.json").exists()
        else:
            assert process.returncode == 0
            break
    assert kills >= 2
    assert hashes(out) == hashes(tmp_path / "calm")
    assert not out.with_name("out.work").exists()


@dataclass(frozen=True, kw_only=True)
class _Length(Annotator):
    """Writes the length beside and inside of other fields."""

    name = "test_annotator"

    def annotate(self, batch: Batch) -> dict[str, list[Any]]:
        lengths = [len(text) for text in batch.texts.strings]
        return {"length": lengths, "meta.length": lengths}


@dataclass(frozen=True, kw_only=True)
class _Kind(OneOf):
    """Keeps two kinds."""

    name = "test_one_of"

    @property
    def allowed(self) -> tuple[str, ...]:
        return ("a", "b")

    def measure(self, batch: Batch) -> dict[str, Any]:
        return {self.name: np.array(batch.field("kind"), object)}


def test_annotators_add_fields_and_words_are_filtered(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = [{"text": "one", "kind": "a", "meta": {"x": 1}}, {"text": "three", "kind": "c"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = Dataset.read(source).apply(_Length(), _Kind()).write(tmp_path / "out", trace=True)
    kept = [
        json.loads(line) for line in (tmp_path / "out/data-00000.jsonl").read_text().splitlines()
    ]
    assert kept == [{"text": "one", "kind": "a", "meta": {"x": 1, "length": 3}, "length": 3}]
    assert result.why(1) == [
        {
            "what": "dropped",
            "id": "1",
            "operator": "test_one_of",
            "statistic": "test_one_of",
            "threshold": "one of: a, b",
            "reason": "it is c",
        }
    ]


def test_a_recipe_that_begins_like_another_goes_on_from_its_cache(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows(300))
    cache = tmp_path / "cache"
    begin = (ops.clean_links(), ops.text_length(min=20), ops.checkpoint())
    source = FileSource(path, rows=50)
    one = Dataset(source).apply(*begin, ops.words_num(min=8)).write(tmp_path / "a", cache=cache)
    folders = {p.name: p.stat().st_ino for p in cache.iterdir() if p.is_dir()}
    assert len(folders) == 2
    two = Dataset(source).apply(*begin, ops.words_num(min=20))
    cached = two.write(tmp_path / "b", cache=cache, trace=True)
    plain = two.write(tmp_path / "c", trace=True)
    assert (cached.sha256, cached.rows_dropped) == (plain.sha256, plain.rows_dropped)
    assert cached.rows_in == 300
    assert cached.operators["text_length"].rows_out == plain.operators["text_length"].rows_out
    now = {p.name: p.stat().st_ino for p in cache.iterdir() if p.is_dir()}
    assert len(now) == 3
    assert folders.items() <= now.items()
    assert not list(tmp_path.glob("*.work"))
    again = Dataset(source).apply(*begin, ops.words_num(min=8))
    assert again.write(tmp_path / "d", cache=cache).sha256 == one.sha256
    other = Dataset(source).apply(ops.text_length(min=21))
    other.write(tmp_path / "e", cache=cache, cache_bytes=1)
    left = [p for p in cache.iterdir() if p.is_dir()]
    assert len(left) <= 1  # its own may stay until it ends
    with pytest.raises(ConfigError, match="cache_bytes=-1"):
        other.write(tmp_path / "f", cache=cache, cache_bytes=-1)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_what_was_written_is_read_without_its_trace(tmp_path, format):
    path = write_rows(tmp_path / "in.jsonl", [{"text": PROSE * (i % 3)} for i in range(9)])
    ds = Dataset.read(path).apply(ops.text_length(min=1))
    ds.write(tmp_path / "out", format=format, trace=True)
    again = Dataset.read(tmp_path / "out").write(tmp_path / "again")
    assert (again.rows_in, again.rows_out) == (6, 6)


SLOW = """
import sys, time
from dataclasses import dataclass
from sharpen.data import Dataset, ops
from sharpen.data.ops import Mapper, operator
from sharpen.data.sources import FileSource

@operator("slow_copy")
@dataclass(frozen=True, kw_only=True)
class SlowCopy(Mapper):
    def edit(self, batch):
        time.sleep(0.05)
        return batch.texts.column

if sys.argv[3] == "limit":
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
ds = Dataset(FileSource(sys.argv[1], rows=20)).apply(SlowCopy(), ops.text_length(min=20))
print("begun", flush=True)
ds.write(sys.argv[2], workers=2, on_error="fail")
"""


def test_interrupted_it_goes_on_where_it_was(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows(1500))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), str(out), "-"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    work = out.with_name("out.work")
    while len(list(work.glob("*/[0-9]*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()
    assert process.returncode != 0
    assert not out.exists()
    finished = list(work.glob("*/[0-9]*.json"))
    assert finished
    times = {p: p.stat().st_mtime_ns for p in finished}
    script = [sys.executable, "-c", SLOW, str(path), str(out), "-"]
    again = subprocess.Popen(script, stdout=subprocess.DEVNULL)
    while again.poll() is None and not out.exists():
        kept = {p: p.stat().st_mtime_ns for p in times if p.exists()}
        assert all(times[p] == kept[p] for p in kept)  # what was done is not done again
        time.sleep(0.02)
    assert again.wait(20) == 0
    assert len(read_output(out)) == sum(len(r["text"]) >= 20 for r in rows(1500))
    assert not work.exists()


def test_a_full_disk_is_said_and_nothing_half_written(tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows(100))
    out = tmp_path / "out"
    script = [sys.executable, "-c", SLOW, str(path), str(out), "limit"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode != 0
    assert "StorageError" in done.stderr
    assert not out.exists()
    assert not list(tmp_path.glob("out.work/*/[0-9]*.json"))
    script[-1] = "-"
    subprocess.run(script, check=True, capture_output=True)
    assert read_output(out)
