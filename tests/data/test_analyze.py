"""Analyses: sketches against exact quantiles, thresholds against what they were asked for."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.data import Dataset, ops
from sharpen.data.analyze import analyze
from sharpen.data.analyze_folder import analyze_to, open_for_analysis
from sharpen.data.sketch import Sketch
from sharpen.data.sources import FileSource
from sharpen.data.suggest import as_process, by_deviation, by_share

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.lists(FLOATS, max_size=20), max_size=6))
@settings(max_examples=60)
def test_a_sketch_that_holds_all_is_exact(parts):
    sketch = Sketch()
    for part in parts:
        sketch.add(np.array([*part, np.nan]))
    whole = np.array([v for part in parts for v in part])
    assert (sketch.count, sketch.missing) == (len(whole), len(parts))
    if len(whole):
        shares = np.linspace(0, 1, 7)
        assert np.allclose(sketch.quantile(shares), np.quantile(whole, shares), rtol=1e-12)
        assert np.isclose(sketch.mean, whole.mean(), rtol=1e-9, atol=1e-9)
        assert np.isclose(sketch.deviation, whole.std(), rtol=1e-6, atol=1e-6)
        assert sketch.below(whole[0]) == (whole < whole[0]).mean()
        assert np.isclose(sketch.histogram(5)[1].sum(), 1)
    else:
        assert np.isnan(sketch.quantile(0.5))


@pytest.mark.parametrize("draw", ["normal", "lognormal", "sorted", "steps"])
def test_a_digest_is_close_in_rank_and_closest_in_the_tails(draw):
    rng = np.random.default_rng(0)
    values = rng.normal(size=60_000)
    if draw == "lognormal":
        values = np.exp(3 * values)
    elif draw == "sorted":
        values = np.sort(values)
    elif draw == "steps":
        values = np.round(values * 2)
    sketch = Sketch(exact=5000, compression=500)
    for part in np.array_split(values, 37):
        sketch.add(part)
    assert not sketch.is_exact
    assert len(sketch._values[0]) < 1500
    for q in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999):
        value = float(sketch.quantile(q))
        low, high = (values < value).mean(), (values <= value).mean()
        allowed = 6 * np.sqrt(q * (1 - q)) / 500 + (5e-3 if draw == "steps" else 1e-4)
        assert low - allowed <= q <= high + allowed
        if draw != "steps":
            assert abs(float(sketch.below(value)) - q) < 1e-3
    assert float(sketch.quantile(0)) == values.min()
    assert float(sketch.quantile(1)) == values.max()
    assert np.isclose(sketch.deviation, values.std(), rtol=1e-9)


def write(path: Path, count: int = 900) -> Path:
    rng = random.Random(0)
    words = ["sea", "wind", "ship", "the", "and", "12", "--", "calm", "of", "a", "to"]
    rows = [
        {
            "text": " ".join(rng.choices(words, k=rng.randrange(1, 60))),
            "site": "ab"[i % 2],
            "n": i,
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_analysis_measures_what_a_run_measures(tmp_path):
    path = write(tmp_path / "in.jsonl")
    filters = [
        ops.text_length(min=100),
        ops.special_characters(max=0.2),
        ops.gopher_quality(min_words=20),
    ]
    table = tmp_path / "all.parquet"
    operators = [ops.replace_content(pattern="--"), *filters]
    found = analyze(FileSource(path, rows=50), operators, by="site", table=table, workers=2)
    values = pq.read_table(table).to_pydict()
    texts = [json.loads(line)["text"].replace("--", "") for line in path.read_text().splitlines()]
    assert values["text_length"] == [len(t) for t in texts]
    assert values["id"] == [str(i) for i in range(len(texts))]
    kept = Dataset.read(path).apply(*operators).write(tmp_path / "out")
    assert found.kept == kept.rows_out
    assert found.rows == len(texts)
    lengths = np.array(values["text_length"], float)
    assert found.dropped["text_length"] == (lengths < 100).sum()
    assert float(found.sketches["text_length"].quantile(0.3)) == np.quantile(lengths, 0.3)
    assert float(found.by["b"]["text_length"].quantile(0.5)) == np.median(lengths[1::2])
    matrix = np.array([values[name] for name in found.names], float)
    moving = matrix.std(1) > 0
    assert np.allclose(found.pearson()[moving][:, moving], np.corrcoef(matrix[moving]), atol=1e-9)
    near = found.near["text_length"].rows()
    closest = sorted(v for v in values["text_length"] if v >= 100)[:3]
    assert [one["value"] for one in near["kept"]] == closest
    assert all(one["value"] < 100 for one in near["dropped"])
    assert "gopher_quality.words" in found.names
    again = analyze(FileSource(path, rows=7), operators, workers=1)
    assert np.allclose(again.pearson(), found.pearson(), equal_nan=True)
    assert again.near["text_length"].rows() == near


@pytest.mark.parametrize("keep", [1.0, 0.9, 0.5, 0.1])
def test_suggested_thresholds_keep_what_was_asked(tmp_path, keep):
    path = write(tmp_path / "in.jsonl")
    filters = [ops.text_length(), ops.special_characters(), ops.words_num(min=1, max=1000)]
    found = analyze(FileSource(path), filters)
    process = as_process(by_share(found, keep))
    assert set(process[0]["text_length"]) == {"min"}
    assert set(process[2]["words_num"]) == {"min", "max"}
    operators = [ops.make_operator(*next(iter(one.items()))) for one in process]
    result = Dataset.read(path).apply(*operators).write(tmp_path / "out")
    assert abs(result.rows_out / 900 - keep) < 0.05
    sigma = by_deviation(found, 2.0)["special_characters"]
    column = found.sketches["special_characters"]
    assert sigma.high == column.mean + 2 * column.deviation
    for wrong in (0, 1.5):
        with pytest.raises(ConfigError, match="keep="):
            by_share(found, wrong)


def test_a_folder_of_an_analysis_appears_whole_or_not_at_all(tmp_path):
    path = write(tmp_path / "in.jsonl", 40)
    source, filters = open_for_analysis(str(path))
    document = analyze_to(tmp_path / "out", source, filters, keep=0.8, by="site")
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["rows"] == 40
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Suggested thresholds" in page
    assert "By source: medians" in page
    assert set(document["by"]) == {"a", "b"}
    with pytest.raises(ConfigError, match="is there already"):
        analyze_to(tmp_path / "out", source, filters)
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(DataError, match=r"in.jsonl:41"):
        analyze_to(tmp_path / "bad", source, filters)
    assert not (tmp_path / "bad").exists()
    less = analyze_to(tmp_path / "skip", source, filters, on_error="skip")
    assert (less["rows"], less["rows_left_out"]) == (40, 1)


def test_a_recipe_is_analyzed_without_dropping(tmp_path):
    write(tmp_path / "in.jsonl", 30)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "sharpen: 1\ndata:\n  source: {path: in.jsonl}\n"
        "  process: [clean_links, {text_length: {min: 50}}, exact_dedup]\n"
    )
    source, operators = open_for_analysis(str(recipe), limit=20)
    assert [one.name for one in operators] == ["clean_links", "text_length"]
    assert analyze(source, operators).rows == 20
    with pytest.raises(ConfigError, match="no filter"):
        analyze(source, operators[:1])
    with pytest.raises(ConfigError, match="measured twice"):
        analyze(source, [ops.text_length(), ops.text_length(min=5)])
