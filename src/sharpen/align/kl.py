"""How far the policy went from the reference, and a penalty whose weight keeps it near a target.

With d = log pi_ref(a) - log pi(a) of a drawn action (Schulman, "Approximating KL divergence",
2020), both estimate KL(pi || pi_ref) without bias where a was drawn from pi::

    k1 = -d                      may be negative
    k3 = exp(d) - d - 1          never negative, and varies less near 0

The controller of Ziegler et al., "Fine-Tuning Language Models from Human Preferences", 2019,
section 2.2, after each step::

    b <- b (1 + k clip(KL / target - 1, -0.2, 0.2))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from sharpen.core.errors import ConfigError

__all__ = ["AdaptiveKL", "k1", "k3"]

_MOST = 0.2


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Of each token, of the same shape."""
    return logp - ref_logp


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Of each token, of the same shape."""
    difference = ref_logp - logp
    return difference.exp() - difference - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveKL:
    """The controller; plain data, so that it goes into a checkpoint as it is."""

    beta: float = 0.05
    """Weight of the penalty now."""
    target: float = 6.0
    """KL divergence of a completion, in nats."""
    horizon: float = 10_000
    """Completions over which the weight may change by a factor e^0.2; k = completions / horizon."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.target <= 0 or self.horizon <= 0:
            raise ConfigError(
                f"beta={self.beta}, target={self.target} and horizon={self.horizon} (AdaptiveKL) "
                "must be above 0."
            )

    def updated(self, kl: float, completions: int) -> Self:
        """After a step on ``completions`` completions whose mean divergence was ``kl``."""
        error = max(-_MOST, min(_MOST, kl / self.target - 1))
        return replace(self, beta=self.beta * (1 + completions / self.horizon * error))
