import numpy as np
from scipy.stats import chisquare, kstest

from sharpen.core.parameters import Categorical, Float, Int
from sharpen.core.space import Space
from sharpen.search import Random


def test_draws_are_uniform_and_independent_of_how_they_are_asked_for() -> None:
    space = Space(x=Float(0, 1), n=Int(1, 5), kind=Categorical("a", "b", weights=[1, 3]))
    configs = [c.config for c in Random(space, seed=7).ask(2000)]
    assert kstest([c["x"] for c in configs], "uniform").pvalue > 1e-3
    counts = np.bincount([c["n"] for c in configs], minlength=6)[1:]
    assert chisquare(counts).pvalue > 1e-3
    kinds = sum(c["kind"] == "b" for c in configs)
    assert chisquare([2000 - kinds, kinds], [500, 1500]).pvalue > 1e-3
    alone = [Random(space, seed=7).ask(number=k)[0].config for k in (0, 5, 1999)]
    assert alone == [configs[k] for k in (0, 5, 1999)]


def test_neighbouring_seeds_give_unrelated_draws() -> None:
    space = Space(x=Float(0, 1))
    first = [c.config["x"] for c in Random(space, seed=0).ask(300)]
    second = [c.config["x"] for c in Random(space, seed=1).ask(300)]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert abs(np.corrcoef(first[1:], second[:-1])[0, 1]) < 0.2
