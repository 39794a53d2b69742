"""Black-box optimizers: each proposes configurations and learns from what came of them."""

from sharpen.core.lazy import exports
from sharpen.search.aco import ACO
from sharpen.search.annealing import RandomWalk, SimulatedAnnealing
from sharpen.search.cmaes import CMAES
from sharpen.search.de import DE
from sharpen.search.ga import GA
from sharpen.search.jade import JADE
from sharpen.search.lshade import LSHADE
from sharpen.search.pso import PSO
from sharpen.search.random import Random
from sharpen.search.sobol import Sobol
from sharpen.search.tpe import TPE

__all__ = [
    "ACO",
    "CMAES",
    "DE",
    "GA",
    "GP",
    "JADE",
    "LSHADE",
    "PSO",
    "TPE",
    "Random",
    "RandomWalk",
    "SimulatedAnnealing",
    "Sobol",
]

# What needs torch is loaded on first use.
__getattr__ = exports("sharpen.search", {"GP": "sharpen.search.gp.optimizer"})
