"""Networks, and the search for an accelerator that runs one of them.

The layers are those of the published networks, with batch 1: AlexNet (Krizhevsky et al., NeurIPS
2012, one GPU, without the groups), ResNet-18 (He et al., CVPR 2016, table 1), BERT-base (Devlin et
al., NAACL 2019) on 128 tokens, and a step of decoding of a model with the sizes of Llama-2 7B
(Touvron et al., 2023, without its attention over the past).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.feedback import Feedback
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.problems.arch.accelerator import (
    Accelerator,
    Cost,
    Layer,
    accelerator_space,
    cost_of,
    words_of,
)
from sharpen.problems.arch.rewards import EPSILON, Goal, Reward

__all__ = ["NETWORKS", "AcceleratorProblem"]

Target = Literal["energy", "latency", "joint"]
_METRICS: dict[str, tuple[str, ...]] = {
    "energy": ("energy",),
    "latency": ("latency",),
    "joint": ("energy", "latency"),
}
_MOST_PES, _MOST_WORDS = 32 * 32, 16

NETWORKS: dict[str, tuple[Layer, ...]] = {
    "alexnet": (
        Layer(96, 3, 55, 55, 11, 11, stride=4),
        Layer(256, 96, 27, 27, 5, 5),
        Layer(384, 256, 13, 13, 3, 3),
        Layer(384, 384, 13, 13, 3, 3),
        Layer(256, 384, 13, 13, 3, 3),
        Layer(4096, 9216, 1),
        Layer(4096, 4096, 1),
        Layer(1000, 4096, 1),
    ),
    "resnet-18": (
        Layer(64, 3, 112, 112, 7, 7, stride=2),
        Layer(64, 64, 56, 56, 3, 3, repeat=4),
        Layer(128, 64, 28, 28, 3, 3, stride=2),
        Layer(128, 64, 28, 28, stride=2),
        Layer(128, 128, 28, 28, 3, 3, repeat=3),
        Layer(256, 128, 14, 14, 3, 3, stride=2),
        Layer(256, 128, 14, 14, stride=2),
        Layer(256, 256, 14, 14, 3, 3, repeat=3),
        Layer(512, 256, 7, 7, 3, 3, stride=2),
        Layer(512, 256, 7, 7, stride=2),
        Layer(512, 512, 7, 7, 3, 3, repeat=3),
        Layer(1000, 512, 1),
    ),
    "bert-base": (
        Layer(768, 768, 128, repeat=12 * 4),
        Layer(128, 64, 128, repeat=12 * 12),
        Layer(64, 128, 128, repeat=12 * 12),
        Layer(3072, 768, 128, repeat=12),
        Layer(768, 3072, 128, repeat=12),
    ),
    "llama-decode": (
        Layer(4096, 4096, 1, repeat=32 * 4),
        Layer(11008, 4096, 1, repeat=32 * 2),
        Layer(4096, 11008, 1, repeat=32),
        Layer(32000, 4096, 1),
    ),
}
"""Layers by network."""


class AcceleratorProblem:
    """Find the accelerator that runs a network with little energy, in little time, or both.

    The objective is ``reward``, to be maximized. What was observed is kept beside it: ``energy`` in
    microjoules (a 16-bit multiplication is a picojoule), ``latency`` in microseconds at 1 GHz,
    ``power`` in watts, ``area`` in square millimetres, and ``utilization``. A design on which a
    layer cannot be mapped is infeasible.

    Without targets of your own, they are bounds that no design passes: each word crosses DRAM's bus
    once, 16 in a cycle, 1024 PEs never wait, and the buffer takes no energy.

    Args:
        workload: one of :data:`NETWORKS`, or layers.
        target: which metrics count.
        targets: their targets.
        weights: of metrics in the bounded reward.
        reward: which formula; see :mod:`sharpen.problems.arch.rewards`.
        epsilon: of ``"archgym"``.
        area: square millimetres that a design may take; a constraint. None is no limit.

    Raises:
        ConfigError: an unknown word, or targets or weights that do not fit.
    """

    def __init__(
        self,
        workload: str | Sequence[Layer] = "resnet-18",
        *,
        target: Target = "joint",
        targets: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        reward: Reward = "bounded",
        epsilon: float = EPSILON,
        area: float | None = None,
    ) -> None:
        if target not in _METRICS:
            raise ConfigError(f"target={target!r} must be one of {', '.join(_METRICS)}.")
        if isinstance(workload, str):
            if workload not in NETWORKS:
                raise ConfigError(
                    f"there is no network '{workload}'.{did_you_mean(workload, NETWORKS)} "
                    f"Known: {', '.join(NETWORKS)}; or give layers."
                )
            self.layers: tuple[Layer, ...] = NETWORKS[workload]
        else:
            self.layers = tuple(workload)
        if not self.layers:
            raise ConfigError("an accelerator needs a layer to run.")
        if area is not None and not area > 0:
            raise ConfigError(f"area={area} must be positive.")
        label = workload if isinstance(workload, str) else f"{len(self.layers)}-layers"
        self.name = f"accelerator-{label}-{target}"
        self.space = accelerator_space()
        self.objectives = (Objective("reward", "max"),)
        self.constraints = () if area is None else (Constraint("area", "<=", area),)
        self.goal = Goal.of(_METRICS[target], self._least(), targets, weights, reward, epsilon)

    @property
    def targets(self) -> dict[str, float]:
        """The target of each metric that counts."""
        return self.goal.targets

    def _least(self) -> dict[str, float]:
        macs = sum(layer.repeat * layer.macs for layer in self.layers)
        words = sum(
            layer.repeat * sum(words_of(layer, layer.sizes).values()) for layer in self.layers
        )
        cycles = max(macs / _MOST_PES, words / _MOST_WORDS)
        return {"energy": (5 * macs + 200 * words) * 1e-6, "latency": cycles * 1e-3}

    def simulate(self, config: Mapping[str, Any]) -> Cost | None:
        """What the network takes under a configuration; None where a layer cannot be mapped."""
        hardware = Accelerator(**config)
        found = []
        for layer in self.layers:
            cost = cost_of(layer, hardware)
            if cost is None:
                return None
            found.append((layer.repeat, cost))
        return Cost.total(found)

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> Feedback:
        """The reward, and what was observed."""
        hardware = Accelerator(**config)
        cost = self.simulate(config)
        if cost is None:
            return Feedback(
                status="infeasible", error="a layer fits neither the buffer nor the registers."
            )
        energy, latency = cost.energy * 1e-6, cost.cycles * 1e-3
        metrics = {
            "energy": energy,
            "latency": latency,
            "power": energy / latency,
            "area": hardware.area_mm2,
            "utilization": cost.utilization,
        }
        limits = {"area": hardware.area_mm2} if self.constraints else {}
        return Feedback(objectives=self.score(metrics), constraints=limits, info=metrics)

    def score(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The objective of measured or predicted metrics."""
        return self.goal.score(metrics)
