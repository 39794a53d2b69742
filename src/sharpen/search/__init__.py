"""Black-box optimizers: each proposes configurations and learns from what came of them."""

from sharpen.search.random import Random
from sharpen.search.sobol import Sobol

__all__ = ["Random", "Sobol"]
