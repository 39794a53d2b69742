"""Loops that improve a program on examples: minibatches, search, beams, confidence bounds."""
