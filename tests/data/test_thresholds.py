"""Thresholds by search: what is scored, and that the search finds rows that are better."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sharpen.core.errors import ConfigError, MissingFileError
from sharpen.data import Dataset, ops
from sharpen.data.analyze_folder import analyze_to
from sharpen.data.ops.base import Bound
from sharpen.data.process import operators_of
from sharpen.data.sources import FileSource
from sharpen.data.thresholds import Measured, ThresholdProblem, load_measured, search_thresholds


def measured(n: int = 4000) -> Measured:
    """Good rows are those of middling length and few digits."""
    rng = np.random.default_rng(0)
    length, digits = rng.lognormal(5, 1, n), rng.uniform(0, 1, n)
    good = (np.abs(np.log(length) - 5) < 0.7) & (digits < 0.4)
    return Measured(
        {"length": length, "digits": digits, "good": good + rng.normal(0, 0.3, n)},
        {"length": Bound("length", 10, 1e6), "digits": Bound("digits", high=1.0)},
    )


def test_a_configuration_cuts_off_the_shares_it_says():
    given = measured()
    problem = ThresholdProblem(given, "good", keep=0.4, weight=2.0)
    assert set(problem.ends) == {"length.min", "length.max", "digits.max"}
    config = {"length.min": 0.25, "length.max": 0.1, "digits.max": 0.5}
    bounds = problem.bounds(config)
    length, digits = given.columns["length"], given.columns["digits"]
    assert abs((length < bounds["length"].low).mean() - 0.25) < 1e-3
    assert abs((length > bounds["length"].high).mean() - 0.1) < 1e-3
    assert bounds["digits"].low == -math.inf
    keep = (length >= bounds["length"].low) & (length <= bounds["length"].high)
    keep &= digits <= bounds["digits"].high
    good = given.columns["good"]
    quality = (good[keep].mean() - good.mean()) / good.std()
    found = problem.measure(config)
    assert math.isclose(found["quality"], quality, rel_tol=1e-9)
    assert math.isclose(found["score"], quality + 2 * min(1, keep.mean() / 0.4), rel_tol=1e-9)
    nothing = problem.measure(dict.fromkeys(problem.ends, 0.0))
    assert (nothing["kept"], nothing["quality"]) == (1.0, pytest.approx(0, abs=1e-12))
    less = ThresholdProblem(given, "good", less_is_better=True).measure(config)
    assert math.isclose(less["quality"], -quality, rel_tol=1e-9)


def test_the_search_finds_the_good_rows():
    problem = ThresholdProblem(measured(), "good", keep=0.2)
    found = search_thresholds(problem, trials=120)
    assert found.trials == 120
    assert found.quality > 1.2  # all good rows and no other: 1.5
    assert found.kept > 0.15
    again = search_thresholds(problem, trials=120)
    assert again == found
    assert [next(iter(one)) for one in found.process] == ["length", "digits"]


def test_it_reads_an_analysis_and_gives_a_recipe(tmp_path: Path):
    path = tmp_path / "in.jsonl"
    rows = ["the sea and the wind " * (i % 9 + 1) + "boats 12 " * (i % 7) for i in range(300)]
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in rows))
    filters = [ops.text_length(min=1), ops.stopwords(), ops.special_characters()]
    analyze_to(tmp_path / "an", FileSource(path), filters)
    problem = ThresholdProblem(load_measured(tmp_path / "an"), "stopwords", keep=0.5)
    found = search_thresholds(problem, trials=40)
    result = Dataset.read(path).apply(*operators_of(found.process)).write(tmp_path / "out")
    assert abs(result.rows_out / 300 - found.kept) < 0.02
    with pytest.raises(MissingFileError, match="holds no analysis"):
        load_measured(tmp_path)


def test_what_cannot_be_searched_is_refused():
    given = measured(100)
    with pytest.raises(ConfigError, match="Did you mean 'good'"):
        ThresholdProblem(given, "god")
    with pytest.raises(ConfigError, match="keep=0"):
        ThresholdProblem(given, "good", keep=0)
    with pytest.raises(ConfigError, match="bounds a statistic"):
        ThresholdProblem(Measured(given.columns, {}), "good")
    flat = {**given.columns, "good": np.ones(100)}
    with pytest.raises(ConfigError, match="the same 'good'"):
        ThresholdProblem(Measured(flat, given.bounds), "good")
