"""Operators that must know all rows, against slow ones that hold everything in memory."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_rows import corpus_of, stays
from sharpen.core.errors import ConfigError
from sharpen.data import Dataset, ops
from sharpen.data.ops.dedup.repeats import cut, seen_before
from sharpen.data.sources import FileSource
from sharpen.data.statistics import Texts
from sharpen.data.statistics.shingles import Shingling, simhash


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(tmp_path: Path, rows: list[dict[str, Any]], *operators: Any, size: int = 7) -> list[Any]:
    """The rows that are left; all others are in the trace."""
    path = write(tmp_path / "in.jsonl", rows)
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    result = Dataset(FileSource(path, rows=size)).apply(*operators).write(out, trace=True)
    kept = [json.loads(line) for line in (out / "data-00000.jsonl").read_text().splitlines()]
    dropped = pq.read_table(out / "trace" / "dropped.parquet")
    assert len(kept) == result.rows_out
    assert len(rows) == len(kept) + dropped.num_rows
    return kept


# Selectors


def scored(n: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = [{"text": f"row {i}", "n": i, "meta": {"score": rng.randrange(12)}} for i in range(n)]
    rows[5]["meta"] = {}
    rows[6]["meta"] = {"score": "high"}
    return rows


def scores(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    found = [(r["n"], r["meta"].get("score")) for r in rows]
    return [(n, s) for n, s in found if isinstance(s, int)]


@pytest.mark.parametrize(("ratio", "count", "size"), [(0.2, None, 8), (None, 5, 5), (0.5, 3, 3)])
def test_the_greatest_or_least_of_a_field_are_kept(tmp_path, ratio, count, size):
    rows = scored()
    for descending in (True, False):
        op = ops.topk_specified_field(
            field="meta.score", ratio=ratio, count=count, descending=descending
        )
        ranked = sorted(scores(rows), key=lambda r: -r[1] if descending else r[1])[:size]
        assert [r["n"] for r in run(tmp_path, rows, op)] == sorted(n for n, _ in ranked)


def test_ranks_of_a_field_are_kept(tmp_path):
    rows = scored()
    op = ops.range_specified_field(
        field="meta.score", lower_percentile=0.12, upper_percentile=0.9, lower_rank=3, upper_rank=20
    )
    ranked = sorted(scores(rows), key=lambda r: r[1])[5:20]
    assert [r["n"] for r in run(tmp_path, rows, op)] == sorted(n for n, _ in ranked)


def test_statistics_can_be_ranked(tmp_path):
    rows = [{"text": "x" * (i % 13 + 1), "n": i} for i in range(30)]
    kept = run(
        tmp_path,
        rows,
        ops.text_length(min=2),
        ops.topk_specified_field(field="stats.text_length", count=4),
    )
    assert [r["n"] for r in kept] == [11, 12, 24, 25]
    assert "stats" not in kept[0]


def test_the_most_frequent_values_are_kept(tmp_path):
    rows = [{"text": "t", "kind": kind, "n": i} for i, kind in enumerate("abacabadde")]
    kept = run(tmp_path, rows, ops.frequency_specified_field(field="kind", count=2))
    assert [r["kind"] for r in kept] == list("abaaba")
    rare = run(
        tmp_path, rows, ops.frequency_specified_field(field="kind", ratio=0.4, descending=False)
    )
    assert [r["kind"] for r in rare] == ["c", "e"]


def test_rows_are_drawn_the_same_whatever_the_batches(tmp_path):
    rows = [{"text": f"row {i}", "n": i} for i in range(300)]
    draws = [
        [r["n"] for r in run(tmp_path, rows, ops.random_rows(count=40, seed=seed), size=size)]
        for seed, size in ((0, 7), (0, 300), (1, 7))
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 40
    assert abs(np.mean(draws[0]) - 149.5) < 4 * 86.6 / 40**0.5


def test_options_out_of_range_are_refused():
    for make, told in (
        (lambda: ops.random_rows(), "give ratio, count"),
        (lambda: ops.random_rows(ratio=1.5), "ratio=1.5 must be"),
        (lambda: ops.topk_specified_field(field="a", count=-1), "count=-1 must not"),
        (
            lambda: ops.range_specified_field(
                field="a", lower_percentile=0.9, upper_percentile=0.1
            ),
            "in order",
        ),
        (lambda: ops.line_dedup(min_length=0), "min_length=0"),
        (lambda: ops.substring_dedup(size=1), "size=1 must"),
        (lambda: ops.simhash_dedup(distance=6, blocks=6), "distance=6 must be less"),
        (lambda: ops.group_by(aggregate={"a": "meen:b"}), "Did you mean 'mean'"),
        (lambda: ops.group_by(most=0), "most=0"),
    ):
        with pytest.raises(ConfigError, match=told):
            make()


# Groups


def test_rows_of_a_group_become_one(tmp_path):
    rows = [
        {"text": f"text {i}", "n": i, "site": "ab"[i % 2], "deep": {"lang": "xyx"[i % 3]}}
        for i in range(10)
    ]
    op = ops.group_by(
        by=("site", "deep.lang"),
        separator=" | ",
        aggregate={
            "ns": "list:n",
            "total": "sum:n",
            "langs": "distinct:deep.lang",
            "c": "count:no",
        },
    )
    kept = run(tmp_path, rows, op, size=3)
    groups: dict[Any, list[int]] = {}
    for row in rows:
        groups.setdefault((row["site"], row["deep"]["lang"]), []).append(row["n"])
    assert [r["ns"] for r in kept] == list(groups.values())
    for row, members in zip(kept, groups.values(), strict=True):
        assert row["text"] == " | ".join(f"text {i}" for i in members)
        assert row["total"] == sum(members)
        assert row["n"] == members[0]
        assert row["langs"] == [row["deep"]["lang"]]
        assert row["c"] == 0
    (whole,) = run(tmp_path, rows, ops.group_by(aggregate={"m": "most_frequent:site"}))
    assert whole["m"] == "a"
    parts = run(tmp_path, rows, ops.group_by(most=4, separator=""))
    assert [r["text"].count("text") for r in parts] == [4, 4, 2]


# Pieces of texts


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 20))
def test_what_was_seen_before_is_found_in_any_number_of_passes(numbers, at_once):
    hashes = np.array(numbers, np.uint64)
    wanted = [n in numbers[:i] for i, n in enumerate(numbers)]
    parts = [hashes[:7], hashes[7:7], hashes[7:]]
    assert seen_before(lambda: iter(parts), len(hashes), at_once).tolist() == wanted


@given(st.lists(st.text("aé日\n", max_size=20), max_size=5), st.data())
def test_ranges_are_cut_whole_characters_at_a_time(texts, data):
    column = Texts(texts)
    begins, ends, wanted = [], [], []
    for text, place in zip(texts, column.offsets.tolist(), strict=False):
        kept = [True] * len(text)
        for _ in range(data.draw(st.integers(0, 3)) if text else 0):
            a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
            begins.append(place + len(text[:a].encode()))
            ends.append(place + len(text[:b].encode()))
            kept[a:b] = [False] * (b - a)
        wanted.append("".join(c for c, k in zip(text, kept, strict=True) if k))
    found = cut(column, np.array(begins, np.int64), np.array(ends, np.int64))
    assert found.to_pylist() == wanted


LINES = [
    "the first of all lines here",
    "a second line that is long",
    "}",
    "",
    "third line, quite long",
]


@given(st.lists(st.lists(st.sampled_from(LINES), max_size=6), max_size=8), st.sampled_from("\n\r"))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_that_stood_before_are_taken_out(tmp_path_factory, texts, end):
    folder = tmp_path_factory.mktemp("lines")
    given_texts = [end.join(lines) for lines in texts]
    rows = corpus_of(folder, ops.line_dedup(), given_texts, size=3)
    edit = ops.line_dedup().plan(rows)
    found = []
    for _, start, batch in rows.batches():
        found += edit(start, batch).to_pylist()
    seen: set[str] = set()
    wanted = []
    for text in given_texts:
        kept = []
        for line in text.splitlines(keepends=True):
            body = line.rstrip("\r\n")
            if len(body) >= 20 and body in seen:
                continue
            seen.add(body)
            kept.append(line)
        wanted.append("".join(kept))
    assert found == wanted


def test_rows_of_repeated_paragraphs_alone_go(tmp_path):
    one, two = "A paragraph of some length.\nIt has two lines.", "Another of about that length."
    rows = [{"text": f"{one}\n\n{two}"}, {"text": f"{two}\n\nEnd."}, {"text": one}]
    kept = run(tmp_path, rows, ops.paragraph_dedup(), size=1)
    assert [r["text"] for r in kept] == [rows[0]["text"], "End."]


def slow_substrings(texts: list[str], size: int) -> list[str]:
    """Cut what a naive search finds to stand before, and at least so many words long."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for text in texts:
        words = [(m.group(), m.start(), m.end()) for m in re.finditer(r"[^ \n\t]+", text)]
        gone = [False] * len(text)
        for j in range(len(words) - size + 1):
            run = tuple(w for w, _, _ in words[j : j + size])
            if run in seen:
                for k in range(words[j][1], words[j + size - 1][2]):
                    gone[k] = True
            seen.add(run)
        found.append("".join(c for c, g in zip(text, gone, strict=True) if not g))
    return found


@pytest.mark.parametrize("native", ["1", "0"])
def test_passages_that_stood_before_are_cut(tmp_path, monkeypatch, native):
    monkeypatch.setenv("SHARPEN_NATIVE", native)
    rng = random.Random(3)
    vocabulary = ["sea", "wind", "é", "ship", "日本", "calm,", "a"]
    texts = []
    for _ in range(60):
        words = rng.choices(vocabulary, k=rng.randrange(0, 30))
        if texts and rng.random() < 0.5:
            source = rng.choice(texts).split(" ")
            words[3:3] = source[: rng.randrange(0, 20)]
        texts.append(rng.choice([" ", "\n", "  "]).join(words))
    op = ops.substring_dedup(size=8)
    rows = corpus_of(tmp_path, op, texts, size=9)
    edit = op.plan(rows)
    found = [t for _, start, batch in rows.batches() for t in edit(start, batch).to_pylist()]
    wanted = slow_substrings(texts, 8)
    assert found == wanted
    assert sum(a != b for a, b in zip(texts, wanted, strict=True)) > 10


# SimHash


def slow_simhash(text: str, size: int) -> int:
    hashes = Shingling(size).hashes(text)
    counts = Counter({k: sum(h >> k & 1 for h in hashes) for k in range(64)})
    return sum(1 << k for k in range(64) if 2 * counts[k] > len(hashes))


@given(st.lists(st.text("ab é\n", max_size=30), max_size=4), st.integers(1, 3))
@settings(max_examples=50)
def test_simhash_is_the_majority_of_each_bit(texts, size):
    wanted = [slow_simhash(text, size) for text in texts]
    assert simhash(Texts(texts), Shingling(size)).tolist() == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        assert simhash(Texts(texts), Shingling(size)).tolist() == wanted


@pytest.mark.parametrize("cluster", ["components", "star"])
def test_every_pair_of_close_hashes_is_found(tmp_path, cluster):
    rng = random.Random(5)
    vocabulary = [f"word{i}" for i in range(500)]
    texts = []
    for _ in range(80):
        words = rng.choices(vocabulary, k=120)
        for _ in range(3):
            texts.append(" ".join(words))
            words[rng.randrange(120)] = rng.choice(vocabulary)
    op = ops.simhash_dedup(window=2, distance=5, blocks=8, cluster=cluster)
    of = stays(tmp_path, op, texts)
    hashes = [slow_simhash(text, 2) for text in texts]
    close = [
        [j for j in range(len(texts)) if (hashes[i] ^ hashes[j]).bit_count() <= 5]
        for i in range(len(texts))
    ]
    if cluster == "star":
        wanted: list[int] = []
        for i, near in enumerate(close):
            wanted.append(min((j for j in near if j < i and wanted[j] == j), default=i))
    else:
        wanted = list(range(len(texts)))
        for _ in range(10):
            wanted = [min(wanted[j] for j in near) for near in close]
    assert of == wanted
    assert sum(a != b for a, b in enumerate(of)) > 50
