import sys

import numpy as np
import pytest
from scipy.stats.qmc import Halton as Reference
from scipy.stats.qmc import discrepancy

from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.parameters import Float
from sharpen.core.space import Space
from sharpen.search.halton import Halton
from sharpen.testing import OptimizerConformance


class TestHalton(OptimizerConformance):
    optimizer = Halton


CUBE = Space(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1))


def test_points_are_those_of_the_scrambled_sequence_in_order_and_after_jumps() -> None:
    points = Reference(3, scramble=True, rng=7).random(60)
    optimizer = Halton(CUBE, seed=7)
    got = np.array([list(c.config.values()) for c in optimizer.ask(60)])
    np.testing.assert_allclose(got, points, rtol=0, atol=1e-15)
    for number in (50, 3, 41):
        config = optimizer.ask(number=number)[0].config
        np.testing.assert_allclose(list(config.values()), points[number], atol=1e-15)


def test_points_are_more_even_than_random_ones() -> None:
    got = np.array([list(c.config.values()) for c in Halton(CUBE, seed=1).ask(100)])
    random = [discrepancy(np.random.default_rng(s).random((100, 3))) for s in range(20)]
    assert discrepancy(got) < 0.5 * min(random)


def test_a_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(DependencyNotInstalled, match="search"):
        Halton(CUBE)
