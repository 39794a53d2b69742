"""Problems with known answers, to try and to compare optimizers on."""

from sharpen.problems.synthetic import SYNTHETIC, Synthetic, synthetic

__all__ = ["SYNTHETIC", "Synthetic", "synthetic"]
