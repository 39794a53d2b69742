"""Black-box optimizers: each proposes configurations and learns from what came of them."""

from sharpen.search.cmaes import CMAES
from sharpen.search.random import Random
from sharpen.search.sobol import Sobol
from sharpen.search.tpe import TPE

__all__ = ["CMAES", "TPE", "Random", "Sobol"]
