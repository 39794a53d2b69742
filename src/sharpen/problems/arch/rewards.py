"""How near a design comes to its targets, as one number.

Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888.

::

    bounded    r = 1 / (1 + sum_m w_m |x_m - t_m| / t_m)           in (0, 1], 1 at the target
    archgym    r = prod_m t_m / max(|t_m - x_m|, epsilon t_m)      the published formula, capped

x is what the simulator measures, t the target, m runs over the metrics of the goal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sharpen.core.errors import ConfigError

__all__ = ["EPSILON", "Goal", "Reward", "reward_of"]

Reward = Literal["bounded", "archgym"]
EPSILON = 0.01


def reward_of(
    metrics: Mapping[str, float],
    targets: Mapping[str, float],
    *,
    reward: Reward = "bounded",
    weights: Mapping[str, float] | None = None,
    epsilon: float = EPSILON,
) -> float:
    """How near metrics are to their targets; see the module.

    Args:
        metrics: what was measured; those without a target are not looked at.
        targets: positive.
        reward: which formula.
        weights: of metrics in ``"bounded"``; default 1 each.
        epsilon: in ``"archgym"``, the relative distance below which nothing more is gained; a
            metric gives at most ``1 / epsilon``.

    Examples:
        >>> reward_of({"power": 1.5}, {"power": 1.0})
        0.6666666666666666
    """
    if reward == "bounded":
        far = [
            (weights or {}).get(name, 1.0) * abs(metrics[name] - t) / t
            for name, t in targets.items()
        ]
        return 1 / (1 + sum(far))
    found = 1.0
    for name, t in targets.items():
        found *= t / max(abs(t - metrics[name]), epsilon * t)
    return found


@dataclass(frozen=True, slots=True)
class Goal:
    """Targets, and the formula that scores metrics by them; made by :meth:`of`."""

    targets: dict[str, float]
    weights: dict[str, float]
    reward: Reward
    epsilon: float

    @classmethod
    def of(
        cls,
        wanted: Sequence[str],
        least: Mapping[str, float],
        targets: Mapping[str, float] | None,
        weights: Mapping[str, float] | None,
        reward: Reward,
        epsilon: float,
    ) -> Goal:
        """A goal of the metrics ``wanted``, whose targets are ``least`` unless given.

        Raises:
            ConfigError: an unknown formula or metric, or a number out of range.
        """
        if reward not in get_args(Reward):
            raise ConfigError(f"reward={reward!r} must be one of {', '.join(get_args(Reward))}.")
        if not 0 < epsilon < 1:
            raise ConfigError(f"epsilon={epsilon} must lie between 0 and 1.")
        for what, given in (("targets", targets), ("weights", weights)):
            for name, value in (given or {}).items():
                if name not in wanted:
                    raise ConfigError(f"{what} has '{name}'; this target has {', '.join(wanted)}.")
                low = value > 0 if what == "targets" else value >= 0
                if not (low and value < float("inf")):
                    kind = "positive" if what == "targets" else "at least 0"
                    raise ConfigError(f"{what}[{name!r}]={value} must be {kind}.")
        return cls(
            {name: float((targets or {}).get(name, least[name])) for name in wanted},
            {name: float((weights or {}).get(name, 1.0)) for name in wanted},
            reward,
            epsilon,
        )

    def score(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The objective ``reward`` of metrics."""
        value = reward_of(
            metrics, self.targets, reward=self.reward, weights=self.weights, epsilon=self.epsilon
        )
        return {"reward": value}
