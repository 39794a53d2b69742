"""Every configuration of an optimizer's own options makes an optimizer that works."""

import pytest

from sharpen.core.optimizer import Optimizer
from sharpen.search import (
    ACO,
    AQGD,
    CMAES,
    COBYLA,
    DE,
    GA,
    JADE,
    LBFGSB,
    LSHADE,
    PSO,
    SLSQP,
    SPSA,
    AdamSPSA,
    LatinHypercube,
    NelderMead,
    Powell,
    RandomWalk,
    SimulatedAnnealing,
)
from sharpen.testing.search import mixed_space

KINDS = (
    *(ACO, AQGD, CMAES, COBYLA, DE, GA, JADE, LBFGSB, LSHADE, PSO, SLSQP, SPSA, AdamSPSA),
    *(LatinHypercube, NelderMead, Powell, RandomWalk, SimulatedAnnealing),
)


@pytest.mark.parametrize("kind", KINDS)
def test_options_from_the_space_are_accepted(kind: type[Optimizer]) -> None:
    space, options = mixed_space(), kind.hyperparameters
    assert options is not None
    for config in (options.default(), *options.sample(12, seed=1)):
        optimizer = kind(space, seed=1, **config)
        for candidate in optimizer.ask(6):
            assert space.validate(candidate.config) == candidate.config
            optimizer.tell([candidate.result(float(candidate.number))])
        assert optimizer.ask()[0].number == 6
