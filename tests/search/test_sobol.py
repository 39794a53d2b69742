import sys

import numpy as np
import pytest
from scipy.stats.qmc import Sobol as Reference
from scipy.stats.qmc import discrepancy

from sharpen.core.errors import DependencyNotInstalled
from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.search import Random, Sobol
from sharpen.search.auto import choose


def test_points_are_those_of_the_scrambled_sequence_in_order_and_after_jumps() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1))
    points = Reference(3, scramble=True, rng=11).random(64)
    optimizer = Sobol(space, seed=11)
    got = np.array([[c.config[k] for k in "xyz"] for c in optimizer.ask(64)])
    np.testing.assert_allclose(got, points, rtol=0, atol=1e-15)
    for number in (5, 40, 3):
        config = optimizer.ask(number=number)[0].config
        np.testing.assert_allclose([config[k] for k in "xyz"], points[number], atol=1e-15)


def test_first_points_fill_every_slice_of_every_parameter_once() -> None:
    space = Space(n=Int(0, 15), kind=Categorical(*"abcdefgh"), x=Float(-1, 1))
    configs = [c.config for c in Sobol(space, seed=3).ask(16)]
    assert sorted(c["n"] for c in configs) == list(range(16))
    assert sorted(c["kind"] for c in configs) == sorted("abcdefgh" * 2)
    assert sorted(int((c["x"] + 1) * 8) for c in configs) == list(range(16))


def test_covers_the_square_more_evenly_than_random_draws() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1))
    sobol, random = (
        discrepancy([[c.config["x"], c.config["y"]] for c in made(space, seed=1).ask(64)])
        for made in (Sobol, Random)
    )
    assert sobol < random / 3


def test_forbidden_points_are_moved_to_allowed_ones() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1)).forbid("x + y > 0.8")
    for candidate in Sobol(space).ask(64):
        assert candidate.config["x"] + candidate.config["y"] <= 0.8


def test_without_scipy_the_error_names_the_extra_and_auto_falls_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats.qmc", None)
    with pytest.raises(DependencyNotInstalled, match=r"sharpen\[search\]"):
        Sobol(Space(x=Float(0, 1)))
    monkeypatch.setattr(sys.modules["sharpen.search.auto"], "find_spec", lambda name: None)
    assert choose(Space(x=Float(0, 1))).name == "random"
