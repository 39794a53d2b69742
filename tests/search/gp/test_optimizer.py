from sharpen.search.gp import GP
from sharpen.testing import OptimizerConformance


class TestGP(OptimizerConformance):
    optimizer = GP
    evaluations = 25
    regret = 0.05
