"""Black-box optimizers: each proposes configurations and learns from what came of them."""

from sharpen.core.lazy import exports
from sharpen.search.cmaes import CMAES
from sharpen.search.de import DE
from sharpen.search.jade import JADE
from sharpen.search.lshade import LSHADE
from sharpen.search.random import Random
from sharpen.search.sobol import Sobol
from sharpen.search.tpe import TPE

__all__ = ["CMAES", "DE", "GP", "JADE", "LSHADE", "TPE", "Random", "Sobol"]

# What needs torch is loaded on first use.
__getattr__ = exports("sharpen.search", {"GP": "sharpen.search.gp.optimizer"})
