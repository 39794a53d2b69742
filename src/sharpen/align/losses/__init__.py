"""Losses as pure functions of log-probabilities and a batch; one technique a file."""
