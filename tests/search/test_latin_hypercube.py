import numpy as np
import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Float, Int
from sharpen.core.space import Space
from sharpen.search.latin_hypercube import LatinHypercube
from sharpen.testing import OptimizerConformance


class TestLatinHypercube(OptimizerConformance):
    optimizer = LatinHypercube


CUBE = Space({f"x{i}": Float(0, 1) for i in range(4)})


def test_every_slice_of_every_parameter_has_one_point_of_each_design() -> None:
    n = 20
    optimizer = LatinHypercube(CUBE, seed=3, points=n)
    points = np.array([list(c.config.values()) for c in optimizer.ask(3 * n)])
    for design in np.split(points, 3):
        for column in design.T:
            assert sorted(np.floor(column * n).astype(int)) == list(range(n))
    assert not np.allclose(points[:n], points[n : 2 * n])
    correlation = np.corrcoef(points.T)
    assert np.abs(correlation - np.eye(4)).max() < 0.5


def test_a_proposal_depends_on_its_number_alone() -> None:
    optimizer = LatinHypercube(CUBE, seed=3, points=8)
    configs = [c.config for c in optimizer.ask(30)]
    again = LatinHypercube(CUBE, seed=3, points=8)
    for number in (29, 3, 17, 8):
        assert again.propose(number) == configs[number]


def test_a_design_has_as_many_points_as_the_budget() -> None:
    space = Space(n=Int(1, 50))
    configs = [c.config["n"] for c in LatinHypercube(space, seed=0, budget=50).ask(50)]
    assert sorted(configs) == list(range(1, 51))
    assert LatinHypercube(space).points == 32
    with pytest.raises(ConfigError, match="points"):
        LatinHypercube(space, points=0)
