"""The same recipe on a Ray cluster: equal rows, equal reasons, equal errors."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.data import Dataset, ops
from sharpen.data.sources import FileSource

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def corpus(path: Path) -> FileSource:
    rng = random.Random(0)
    words = ["sea", "wind", "ship", "the", "and", "12", "--", "http://a.example/x"]
    rows = [{"text": " ".join(rng.choices(words, k=rng.randrange(1, 50)))} for _ in range(400)]
    rows += rows[::7]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileSource(path, rows=50)


@pytest.mark.slow
def test_a_cluster_comes_to_the_same_rows(tmp_path):
    ds = Dataset(corpus(tmp_path / "in.jsonl")).apply(
        ops.clean_links(),
        ops.text_length(min=40),
        ops.special_characters(max=0.4),
        ops.exact_dedup(),
        ops.minhash_dedup(verify="exact"),
    )
    here = ds.write(tmp_path / "here", trace=True)
    there = ds.write(tmp_path / "there", trace=True, executor="ray")
    assert here.sha256 == there.sha256
    assert here.rows_dropped > 50
    for name in ("dropped", "edited"):
        tables = [
            pq.read_table(tmp_path / side / "trace" / f"{name}.parquet")
            for side in ("here", "there")
        ]
        assert tables[0].equals(tables[1])
    assert ray.is_initialized()  # it was there before


@pytest.mark.slow
def test_errors_of_tasks_are_those_of_threads(tmp_path):
    source = corpus(tmp_path / "in.jsonl")
    ds = Dataset(source).apply(ops.topk_specified_field(field="n", count=3))
    assert ds.write(tmp_path / "none", executor="ray").rows_out == 0
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n{broken\n')
    ds = Dataset.read(tmp_path / "in.jsonl").apply(ops.text_length(min=1))
    with pytest.raises(DataError, match=r"in.jsonl:2"):
        ds.write(tmp_path / "out", executor="ray")
    with pytest.raises(ConfigError, match="must be threads or ray"):
        ds.write(tmp_path / "out", executor="rays")
    with pytest.raises(ConfigError, match="workers=0"):
        ds.write(tmp_path / "out", workers=0)
