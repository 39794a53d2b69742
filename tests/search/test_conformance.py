from sharpen.search import Random, Sobol
from sharpen.search.auto import choose
from sharpen.testing import OptimizerConformance


class TestRandom(OptimizerConformance):
    optimizer = Random


class TestSobol(OptimizerConformance):
    optimizer = Sobol


class TestAuto(OptimizerConformance):
    optimizer = staticmethod(choose)
