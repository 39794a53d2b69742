"""Conformance suites: what every optimizer must keep, as tests that third parties run on theirs."""

from sharpen.testing.search import OptimizerConformance

__all__ = ["OptimizerConformance"]
