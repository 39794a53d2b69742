"""Bandits: policies that choose among arms and learn from losses, and optimizers made of them."""

from sharpen.search.bandits.binned import Binned
from sharpen.search.bandits.chebcb import ChebCB
from sharpen.search.bandits.policy import Policy
from sharpen.search.bandits.tsallis_inf import TsallisINF

__all__ = ["Binned", "ChebCB", "Policy", "TsallisINF"]
