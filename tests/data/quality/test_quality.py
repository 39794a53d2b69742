"""The classifier of texts against scikit-learn, brute force and the rules it follows."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.data import Dataset, ops
from sharpen.data.batch import ID, TEXT, Batch
from sharpen.data.quality import QualityModel, evaluate, train
from sharpen.data.quality.features import Sparse, hashed_words, joined
from sharpen.data.quality.logistic import fit, minimize, sigmoid
from sharpen.data.statistics import Texts, hash_word, refine

COLUMN = st.lists(st.text(st.sampled_from("ab C!\né "), max_size=30), max_size=5)


def examples(n: int = 120) -> tuple[list[str], list[str]]:
    rng = random.Random(0)
    common = [f"word{i}" for i in range(50)]
    good = [" ".join(rng.choices([*common, "calm", "sea", "wind"], k=60)) for _ in range(n)]
    bad = [" ".join(rng.choices([*common, "cheap", "pills", "click"], k=60)) for _ in range(n)]
    return good, bad


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    train(*examples(), bits=12, held_out=0.25).save(path)
    return path


def dense(rows: Sparse) -> np.ndarray:
    found = np.zeros((len(rows), rows.dimensions))
    for i, (a, b) in enumerate(itertools.pairwise(rows.starts)):
        found[i, rows.buckets[a:b]] = rows.values[a:b]
    return found


@given(COLUMN, st.integers(1, 3))
def test_kernels_and_twins_agree(texts, order):
    words = Texts(texts).words
    one = hashed_words(words, order, 8)
    weights, factors = np.linspace(-1, 2, 256), np.linspace(1, 3, len(texts))
    products = one.times(weights), one.sum(factors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        other = hashed_words(words, order, 8)
        slow = other.times(weights), other.sum(factors)
    assert np.array_equal(one.starts, other.starts)
    assert np.array_equal(one.buckets, other.buckets)
    assert np.allclose(one.values, other.values, rtol=3e-7)
    for a, b in zip(products, slow, strict=True):
        assert np.allclose(a, b, atol=1e-6)
    assert np.allclose(products[0], dense(one) @ weights)
    assert np.allclose(products[1], factors @ dense(one))


def test_a_row_holds_the_logs_of_counts_and_has_length_one():
    rows = hashed_words(Texts(["a b a, B a", ""]).words, 1, 28)
    sizes = {refine("a"): 1 + math.log(3), refine("b"): 1 + math.log(2)}
    length = math.hypot(*sizes.values())
    assert sorted(rows.values) == pytest.approx(sorted(v / length for v in sizes.values()))
    assert rows.starts.tolist() == [0, 2, 2]
    assert len(hashed_words(Texts(["a b c"]).words, 2, 28).values) == 5
    assert hash_word("a") != hash_word("b")


def test_the_minimum_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    good, bad = examples()
    words = [Texts(some).words for some in (good, bad)]
    rows = joined([hashed_words(one, 2, 10) for one in words])
    labels = np.arange(len(rows)) < len(good)
    for strength in (0.5, 20.0):
        found = fit(rows, labels, strength=strength, tolerance=1e-8)
        peer = LogisticRegression(C=strength, tol=1e-9, max_iter=5000).fit(dense(rows), labels)
        assert found.weights == pytest.approx(peer.coef_[0], abs=2e-4)
        assert found.intercept == pytest.approx(peer.intercept_[0], abs=2e-4)


def test_the_solver_finds_the_minimum_of_a_narrow_valley():
    def rosenbrock(x):
        a, b = x
        slope = [-400 * a * (b - a * a) - 2 * (1 - a), 200 * (b - a * a)]
        return 100 * (b - a * a) ** 2 + (1 - a) ** 2, np.array(slope)

    x, value, iterations = minimize(rosenbrock, np.array([-1.2, 1.0]), tolerance=1e-8, most=500)
    assert x == pytest.approx([1, 1], abs=1e-6)
    assert value < 1e-12
    assert iterations < 100
    assert minimize(rosenbrock, np.array([-1.2, 1.0]), tolerance=1e-8, most=3)[2] == 3


def test_the_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.55, 1.0]), st.booleans()), min_size=2))
def test_metrics_are_their_definitions(pairs):
    scores, labels = np.array([s for s, _ in pairs]), np.array([g for _, g in pairs])
    if labels.all() or not labels.any():
        with pytest.raises(DataError, match="cannot be told apart"):
            evaluate(scores, labels)
        return
    found = evaluate(scores, labels)
    wins = [
        1.0 if g > b else 0.5 if g == b else 0.0 for g in scores[labels] for b in scores[~labels]
    ]
    assert found.auc == pytest.approx(np.mean(wins))
    assert found.accuracy == pytest.approx(np.mean([(s > 0.5) == g for s, g in pairs]))
    gaps = 0.0
    for low in range(10):
        some = [(s, g) for s, g in pairs if low <= s * 10 < low + 1 or (low == 9 and s == 1)]
        gaps += abs(sum(s for s, _ in some) - sum(g for _, g in some))
    assert found.calibration_error == pytest.approx(gaps / len(pairs))


def test_a_trained_model_tells_them_apart_and_is_always_the_same(tmp_path):
    good, bad = examples()
    model = train(good, bad, bits=12, held_out=0.25)
    again = train(good, bad, bits=12, held_out=0.25)
    assert model.metrics.auc > 0.95
    assert 30 < model.metrics.texts < 90
    assert np.array_equal(model.weights, again.weights)
    shuffled = train(good[::-1], bad, bits=12, held_out=0.25)
    assert shuffled.metrics.texts == model.metrics.texts
    assert shuffled.score(Texts(bad)) == pytest.approx(model.score(Texts(bad)), abs=1e-3)
    model.save(tmp_path / "m.safetensors")
    read = QualityModel.load(tmp_path / "m.safetensors")
    assert np.array_equal(read.score(Texts(good)), model.score(Texts(good)))
    assert (read.metrics, read.about, read.bits) == (model.metrics, model.about, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_NATIVE", "0")
        assert model.score(Texts(good)) == pytest.approx(read.score(Texts(good)), abs=1e-6)


def test_equal_texts_are_on_one_side():
    good, bad = examples(40)
    once, twice = (
        train(good, bad, bits=10, held_out=0.3),
        train(good * 2, bad * 2, bits=10, held_out=0.3),
    )
    assert twice.metrics.texts == 2 * once.metrics.texts


def test_settings_out_of_range_are_refused():
    good, bad = examples(10)
    for settings, message in [
        ({"order": 0}, "order=0"),
        ({"bits": 9}, "bits=9"),
        ({"strength": 0}, "strength=0"),
        ({"held_out": 1}, "held_out=1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            train(good, bad, **settings)
    with pytest.raises(DataError, match="10 good and 0 bad texts"):
        train(good, [])
    with pytest.raises(DataError, match="no texts"):
        train([], [])


def test_another_file_is_refused(model, tmp_path):
    with pytest.raises(MissingFileError):
        QualityModel.load(tmp_path / "none")
    whole = model.read_bytes()
    for data, message in [
        (b"nothing", "no safetensors"),
        (whole[:-5], "no safetensors"),
        (whole.replace(b"sharpen-quality", b"sharpen-unknown"), "holds sharpen-unknown"),
        (whole.replace(b'"weights"', b'"weighty"'), "damaged"),
    ]:
        model.write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            QualityModel.load(model)


def test_the_filter_keeps_what_scores_enough(model, tmp_path):
    good, bad = examples(5)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in good + bad))
    filtered = Dataset.read(rows).apply(ops.quality_score(model=str(model)))
    result = filtered.write(tmp_path / "out", trace=True)
    assert (result.rows_in, result.rows_out) == (10, 5)
    assert result.why(7)[0]["threshold"] == "min=0.5"
    wanted = QualityModel.load(model).score(Texts(bad))[2]
    assert result.why(7)[0]["value"] == pytest.approx(wanted)


def test_the_draws_follow_the_law_and_the_rows_ids(model):
    n = 4000
    op = ops.quality_score(model=str(model), rule="pareto", alpha=9, seed=3)
    ids = pa.array([str(i) for i in range(n)], pa.string())
    texts = pa.array(["nothing known"] * n, pa.large_string())
    batch = Batch(pa.RecordBatch.from_pydict({ID: ids, TEXT: texts}))
    found = op.measure(batch)
    draws = found["over_the_draw"] - found["quality_score"] + 1
    for x in (0.02, 0.1, 0.3):
        p = (1 + x) ** -9
        assert (draws > x).mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))
    kept = op.keep(found)
    assert np.array_equal(kept, found["quality_score"] > 1 - draws)
    part = op.measure(batch.select(np.arange(n) >= 3000))
    assert np.array_equal(part["over_the_draw"], found["over_the_draw"][3000:])
    other = ops.quality_score(model=str(model), rule="pareto", seed=4).measure(batch)
    assert not np.array_equal(other["over_the_draw"], found["over_the_draw"])
    with pytest.raises(ConfigError, match="rule='gpt3' must be one of label, pareto"):
        ops.quality_score(model=str(model), rule="gpt3")
    with pytest.raises(ConfigError, match="alpha=0"):
        ops.quality_score(model=str(model), alpha=0)
