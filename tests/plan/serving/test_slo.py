import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.perf_model import ConstantPerfModel
from sharpen.plan.serving.slo import SLO, Slowdowns, alone_s, percentile


def test_percentiles_are_those_of_numpy() -> None:
    values = sorted(np.random.default_rng(0).normal(size=101).tolist())
    for p in (0, 50, 90, 99, 100):
        assert percentile(values, p) == pytest.approx(float(np.percentile(values, p)))


def test_a_request_alone() -> None:
    assert alone_s(ConstantPerfModel(2.0, 0.5), 100, 5) == (2.0, 0.5, 4.0)
    assert alone_s(ConstantPerfModel(2.0, 0.5), 100, 1) == (2.0, 0.0, 2.0)


def test_all_nine_limits_count() -> None:
    good = {"ttft": [1.0] * 100, "tbt": [1.0] * 100, "e2e": [1.0] * 100}
    assert Slowdowns.of(good).meets(SLO())
    for name in good:
        slow = good | {name: [1.0] * 95 + [7.0] * 5}
        found = Slowdowns.of(slow)
        assert not found.meets(SLO())
        assert found.broken(SLO()) == [f"{name} p99 7 > {6 if name == 'ttft' else 5}"]
    assert Slowdowns.of({"ttft": [1.0], "tbt": [], "e2e": [1.0]}).meets(SLO())


def test_bad_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match="tpot"):
        SLO({"tpot": (1.0, 1.0, 1.0)})
    with pytest.raises(ConfigError, match="at least 1"):
        SLO({"ttft": (0.5, 1.0, 1.0)})
    with pytest.raises(ConfigError, match="needs limits"):
        SLO({})
