"""Black-box optimizers: each proposes configurations and learns from what came of them."""

from sharpen.core.lazy import exports
from sharpen.search.aco import ACO
from sharpen.search.adam_spsa import AdamSPSA
from sharpen.search.annealing import RandomWalk, SimulatedAnnealing
from sharpen.search.aqgd import AQGD
from sharpen.search.asha import ASHA
from sharpen.search.bench import compare_optimizers
from sharpen.search.bohb import BOHB
from sharpen.search.cmaes import CMAES
from sharpen.search.de import DE
from sharpen.search.dehb import DEHB
from sharpen.search.ga import GA
from sharpen.search.grid import Grid
from sharpen.search.halton import Halton
from sharpen.search.hyperband import Hyperband
from sharpen.search.jade import JADE
from sharpen.search.latin_hypercube import LatinHypercube
from sharpen.search.lshade import LSHADE
from sharpen.search.moead import MOEAD
from sharpen.search.nsga2 import NSGA2
from sharpen.search.nsga3 import NSGA3
from sharpen.search.portfolio import Portfolio
from sharpen.search.pso import PSO
from sharpen.search.random import Random
from sharpen.search.scipy_solvers import COBYLA, LBFGSB, SLSQP, NelderMead, Powell
from sharpen.search.sms_emoa import SMSEMOA
from sharpen.search.sobol import Sobol
from sharpen.search.spsa import SPSA
from sharpen.search.successive_halving import SuccessiveHalving
from sharpen.search.sweep import Sweep, sweep
from sharpen.search.tpe import TPE

__all__ = [
    "ACO",
    "AQGD",
    "ASHA",
    "BOHB",
    "CMAES",
    "COBYLA",
    "DE",
    "DEHB",
    "EHVI",
    "GA",
    "GP",
    "IPPO",
    "JADE",
    "LBFGSB",
    "LSHADE",
    "MAPPO",
    "MOEAD",
    "NSGA2",
    "NSGA3",
    "PPO",
    "PSO",
    "SAC",
    "SLSQP",
    "SMSEMOA",
    "SPSA",
    "TPE",
    "AdamSPSA",
    "ContextualGP",
    "Grid",
    "Halton",
    "Hyperband",
    "LatinHypercube",
    "MultiFidelityGP",
    "NelderMead",
    "ParEGO",
    "Portfolio",
    "Powell",
    "Random",
    "RandomWalk",
    "Reinforce",
    "SequentialMARL",
    "SimulatedAnnealing",
    "Sobol",
    "SuccessiveHalving",
    "Sweep",
    "TuRBO",
    "compare_optimizers",
    "sweep",
]

# What needs torch is loaded on first use.
__getattr__ = exports(
    "sharpen.search",
    {
        "ContextualGP": "sharpen.search.gp.contextual",
        "EHVI": "sharpen.search.gp.ehvi",
        "GP": "sharpen.search.gp.optimizer",
        "IPPO": "sharpen.search.marl.ippo",
        "MAPPO": "sharpen.search.marl.mappo",
        "MultiFidelityGP": "sharpen.search.gp.multi_fidelity",
        "PPO": "sharpen.search.rl.ppo",
        "ParEGO": "sharpen.search.gp.parego",
        "Reinforce": "sharpen.search.rl.reinforce",
        "SAC": "sharpen.search.rl.sac",
        "SequentialMARL": "sharpen.search.marl.sequential",
        "TuRBO": "sharpen.search.gp.turbo",
    },
)
