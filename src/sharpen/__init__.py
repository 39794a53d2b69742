"""Sharpen: a model from data to deployment at the limit of the hardware you have."""
