"""Benchmarks of training algorithms: what a step costs, and the time to a result."""
