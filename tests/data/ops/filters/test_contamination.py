"""Passages of evaluation sets are found wherever they stand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_rows import batch_of
from sharpen.core.errors import ConfigError, DataError, MissingFileError
from sharpen.data import Dataset, ops
from sharpen.data.statistics import refine


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def slow_count(text: str, tests: list[str], size: int, least: int) -> int:
    def refined(given: str) -> list[str]:
        parts = given.replace("\n", " ").replace("\t", " ").split(" ")
        return [word for word in map(refine, parts) if word]

    passages: set[tuple[str, ...]] = set()
    for test in tests:
        words = refined(test)
        length = size if len(words) >= size else len(words)
        if length == size or length >= least:
            passages |= {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
    words = refined(text)
    lengths = {len(p) for p in passages}
    runs = [tuple(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1)]
    return sum(run in passages for run in runs)


TEXTS = st.lists(st.sampled_from(["Sea", "sea,", "wind", "--", "\n", "ship", "é"]), max_size=14)


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, min_size=1, max_size=4), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_are_counted_as_a_slow_search_counts_them(tmp_path_factory, rows, tests, native):
    texts, against = [" ".join(r) for r in rows], [" ".join(t) for t in tests]
    path = write(tmp_path_factory.mktemp("tests") / "t.jsonl", [{"text": t} for t in against])
    op = ops.decontaminate(against=(str(path),), size=4, least=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", str(int(native)))
        found = op.measure(batch_of(texts))["decontaminate"].tolist()
    assert found == [slow_count(t, against, 4, 2) for t in texts]


def test_rows_with_a_question_of_the_test_go(tmp_path):
    rng = random.Random(0)
    letters = "abcdefghij"
    vocabulary = [a + b + c for a in letters for b in letters for c in letters]
    question = rng.choices(vocabulary, k=20)
    rows = [" ".join(rng.choices(vocabulary, k=60)) for _ in range(30)]
    rows[7] += " " + ", ".join(question[3:17]).upper()
    rows[9] += " " + " ".join(question[3:15])  # 12 words are too few
    tests = write(tmp_path / "test.jsonl", [{"q": " ".join(question), "a": "Yes."}])
    train = write(tmp_path / "train.jsonl", [{"text": t} for t in rows])
    op = ops.decontaminate(against=(str(tests),), text_keys=("q", "a"))
    result = Dataset.read(train).apply(op).write(tmp_path / "out", trace=True)
    assert result.rows_out == 29
    (told,) = result.why(7)
    assert (told["value"], told["threshold"]) == (2, "max=0")
    again = Dataset.read(train).apply(op)
    assert again.write(tmp_path / "out", trace=True).cached
    write(tests, [{"q": rows[3], "a": ""}])
    with pytest.raises(ConfigError, match="holds something else"):
        again.write(tmp_path / "out", trace=True)


def test_what_cannot_be_looked_for_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs against"):
        ops.decontaminate()
    with pytest.raises(ConfigError, match="copy evaluation sets to this machine"):
        ops.decontaminate(against=("s3://bucket/test.jsonl",))
    with pytest.raises(MissingFileError, match="nowhere"):
        ops.decontaminate(against=("nowhere.jsonl",))
    path = write(tmp_path / "t.jsonl", [{"question": "what"}])
    with pytest.raises(ConfigError, match="size=0"):
        ops.decontaminate(against=(str(path),), size=0)
    with pytest.raises(DataError, match=r"t.jsonl:1: the key 'text' is missing"):
        ops.decontaminate(against=(str(path),)).measure(batch_of(["a"]))
