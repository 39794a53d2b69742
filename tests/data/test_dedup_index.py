"""New data is compared with what earlier runs kept, and a run never with itself."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sharpen.core.errors import BusyError, ConfigError
from sharpen.core.files import FileLock
from sharpen.data import Dataset, ops


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


def kept(folder: Path) -> list[str]:
    lines = (folder / "data-00000.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def texts(seed: int, count: int = 30) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(10**6)}" for _ in range(40)) for _ in range(count)]


@pytest.mark.parametrize("make", [ops.exact_dedup, ops.minhash_dedup, ops.simhash_dedup])
def test_copies_of_earlier_runs_go(tmp_path, make):
    first, fresh = texts(0), texts(1)
    index = str(tmp_path / "index")
    one = write(tmp_path / "a.jsonl", [*first, first[3]])
    two = write(tmp_path / "b.jsonl", [fresh[0], first[7], *fresh[1:], fresh[4], first[2]])
    op = make(index=index)
    before = Dataset.read(one).apply(op).write(tmp_path / "one", trace=True)
    assert kept(tmp_path / "one") == first
    after = Dataset.read(two).apply(op).write(tmp_path / "two", trace=True)
    assert kept(tmp_path / "two") == fresh
    run, _, id = after.why(1)[0]["kept_id"].partition(":")
    assert (id, len(run)) == ("7", 32)
    assert after.why(31)[0]["kept_id"] == "5"
    # The first run again does not find itself, nor what came after it in its own entry.
    again = Dataset.read(one).apply(op).write(tmp_path / "one-again")
    assert (again.sha256, again.rows_out) == (before.sha256, before.rows_out)
    assert len(list((tmp_path / "index").glob("*.arrow"))) == 2
    # The same words without the index are another run.
    assert Dataset.read(two).apply(make()).write(tmp_path / "alone").rows_out == 32


def test_near_copies_of_earlier_rows_go_whichever_would_rather_stay(tmp_path):
    first = texts(0, 5)
    near = [t.rsplit(" ", 1)[0] + " and some more words at the end" for t in first]
    op = ops.minhash_dedup(index=str(tmp_path / "i"), threshold=0.6, keep="longest")
    Dataset.read(write(tmp_path / "a.jsonl", first)).apply(op).write(tmp_path / "a")
    result = (
        Dataset.read(write(tmp_path / "b.jsonl", near)).apply(op).write(tmp_path / "b", trace=True)
    )
    assert result.rows_out == 0
    assert 0.6 <= result.why(0)[0]["value"] < 1


def test_another_index_a_busy_one_and_exact_verification_are_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", texts(0))
    index = tmp_path / "i"
    Dataset.read(path).apply(ops.minhash_dedup(index=str(index))).write(tmp_path / "out")
    for other in (
        ops.minhash_dedup(index=str(index), lanes=128),
        ops.exact_dedup(index=str(index)),
    ):
        with pytest.raises(ConfigError, match="is the index of something else"):
            Dataset.read(path).apply(other).write(tmp_path / "other")
    with pytest.raises(ConfigError, match="keeps no texts"):
        ops.minhash_dedup(index=str(index), verify="exact")
    fresh = write(tmp_path / "b.jsonl", texts(3))
    with FileLock(index / "lock", "the index"), pytest.raises(BusyError):
        Dataset.read(fresh).apply(ops.minhash_dedup(index=str(index))).write(tmp_path / "c")
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "x.arrow").write_text("something")
    with pytest.raises(ConfigError, match="is no index"):
        Dataset.read(path).apply(ops.exact_dedup(index=str(tmp_path / "no"))).write(tmp_path / "d")


def test_more_data_makes_another_run(tmp_path):
    one, two = texts(0, 10), texts(1, 10)
    op = ops.exact_dedup(index=str(tmp_path / "i"))
    Dataset.read(write(tmp_path / "b.jsonl", [*two, one[0]])).apply(op).write(tmp_path / "b")
    Dataset.read(write(tmp_path / "a.jsonl", one)).apply(op).write(tmp_path / "a")
    assert kept(tmp_path / "a") == one[1:]  # the index had it already
    again = Dataset.read(tmp_path / "b.jsonl").apply(op)
    with pytest.raises(ConfigError, match="holds something else"):
        again.write(tmp_path / "b")  # what it is compared with has changed
    assert again.write(tmp_path / "b", overwrite=True).rows_out == 11
