"""Whether a cluster of a design keeps the limits at a rate, by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sharpen.core.errors import ConfigError, DataError
from sharpen.plan.serving.designs import Choice, Design
from sharpen.plan.serving.machines import Link, ServedModel
from sharpen.plan.serving.perf_model import PerfModel
from sharpen.plan.serving.slo import SLO
from sharpen.plan.serving.traces import Trace
from sharpen.serve.simulate.cluster import ClusterSim, Placed, SimConfig
from sharpen.serve.simulate.result import SimResult
from sharpen.serve.simulate.transfer import Overlap, Transfer

__all__ = ["DesignSim"]


@dataclass(slots=True, kw_only=True)
class DesignSim:
    """Simulates designs; call it as a :data:`~sharpen.plan.serving.designs.Meets`."""

    model: ServedModel
    """What is served."""

    trace: Callable[[float], Trace]
    """Requests at a rate."""

    alone: PerfModel
    """Of the machine that slow-downs are measured against."""

    slo: SLO = field(default_factory=SLO)
    """Limits."""

    config: SimConfig = field(default_factory=SimConfig)
    """How machines batch."""

    link: Link = field(default_factory=Link)
    """Between machines."""

    overlap: Overlap = "auto"
    """How keys and values are sent."""

    split_policy: str = "mixed_pool"
    """Where prompts and tokens have machines of their own."""

    baseline_policy: str = "token_jsq"
    """Where they have not."""

    runs: int = 0
    """Simulations so far."""

    def __call__(self, design: Design, prompts: int, tokens: int, rate: float) -> bool:
        """Whether all limits hold."""
        if rate <= 0:
            return True
        try:
            result = self.simulate(design, prompts, tokens, rate)
        except DataError:
            return False  # a request fits no machine of the design
        return result.slowdowns(self.alone).meets(self.slo)

    def simulate(self, design: Design, prompts: int, tokens: int, rate: float) -> SimResult:
        """Run the trace at ``rate`` on so many machines.

        Raises:
            ConfigError: counts that do not fit the design.
            DataError: a request does not fit a machine.
        """
        if prompts < 1 or (tokens < 1) != (design.token is None):
            raise ConfigError(
                f"{design.name} cannot have {prompts} prompt and {tokens} token machines."
            )
        self.runs += 1
        if design.token is None:
            placed = [Placed(design.prompt, "mixed")] * prompts
            policy = self.baseline_policy
        else:
            placed = [Placed(design.prompt, "prompt")] * prompts
            placed += [Placed(design.token, "token")] * tokens
            policy = self.split_policy
        transfer = Transfer(
            layers=self.model.num_layers,
            kv_bytes=self.model.kv_bytes,
            link=self.link,
            overlap=self.overlap,
        )
        sim = ClusterSim(placed, policy, self.trace(rate), transfer=transfer, config=self.config)
        return sim.run()

    def report(self, choice: Choice) -> dict[str, Any]:
        """Percentiles and slow-downs of a choice at its rate."""
        result = self.simulate(choice.design, choice.prompts, choice.tokens, choice.rate)
        slowdowns = result.slowdowns(self.alone)
        summary = result.summary()
        summary.pop("busy", None)
        return {
            **choice.to_dict(),
            "slowdowns": {name: list(values) for name, values in slowdowns.values.items()},
            "simulated": summary,
        }
