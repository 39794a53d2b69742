"""Conformance suites: what every optimizer must keep, as tests that third parties run on theirs."""

from sharpen.testing.optimizers import OptimizerConformance

__all__ = ["OptimizerConformance"]
