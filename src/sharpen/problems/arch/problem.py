"""Design problems on architecture simulators: find the parameters that meet a target.

Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888.

The metrics of the target are power, latency, or both; :mod:`sharpen.problems.arch.rewards` has the
formulas. Without targets of your own, they are what controllers hardly go below: the latency of a
lone read of a closed row, and the power of a channel that only stands by, refreshes and moves the
data in the time that the default controller takes.

An evaluation depends on its configuration alone: nothing is carried from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, overload

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.parameters import Categorical, Fixed, Ordinal, Parameter
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.problems.arch.accelerator import Layer
from sharpen.problems.arch.accelerator_problem import AcceleratorProblem
from sharpen.problems.arch.dram import DramController, DramPolicy, DramResult
from sharpen.problems.arch.rewards import EPSILON, Goal, Reward
from sharpen.problems.arch.soc import Task
from sharpen.problems.arch.soc_problem import SocProblem
from sharpen.problems.arch.timings import DramSpec
from sharpen.problems.arch.traces import WORKLOADS, Trace, read_trace, workload

__all__ = ["PROBLEMS", "DramProblem", "dram_space", "make"]

Target = Literal["power", "latency", "joint"]
_METRICS: dict[str, tuple[str, ...]] = {
    "power": ("power",),
    "latency": ("latency",),
    "joint": ("power", "latency"),
}


def dram_space(*, allow_no_refresh: bool = False) -> Space:
    """The ten parameters of a DRAM controller, 221,184 configurations.

    Args:
        allow_no_refresh: whether ``refresh_policy`` may be ``"NoRefresh"`` too, which loses data: a
            design that only a comparison with published numbers should hold.
    """
    powers, few = [1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4, 8]
    refresh: Parameter = Fixed("AllBank")
    if allow_no_refresh:
        refresh = Categorical("AllBank", "NoRefresh")
    return Space(
        page_policy=Categorical("Open", "OpenAdaptive", "Closed", "ClosedAdaptive"),
        scheduler=Categorical("Fifo", "FrFcfsGrp", "FrFcfs", default="FrFcfs"),
        scheduler_buffer=Categorical("Bankwise", "ReadWrite", "Shared"),
        request_buffer_size=Ordinal(powers, default=8),
        resp_queue=Categorical("Fifo", "Reorder"),
        refresh_policy=refresh,
        refresh_max_postponed=Ordinal(few, default=8),
        refresh_max_pulledin=Ordinal(few, default=8),
        arbiter=Categorical("Simple", "Fifo", "Reorder"),
        max_active_transactions=Ordinal(powers, default=128),
    )


class DramProblem:
    """Find the controller of a DRAM channel that meets a target on a trace.

    The objective is ``reward``, to be maximized. What was observed is kept beside it: ``energy`` in
    microjoules, ``power`` in watts, ``latency`` (mean) in nanoseconds, and ``bandwidth`` in bytes a
    second.

    Args:
        trace: the requests.
        spec: kind of memory.
        target: which metrics count.
        targets: their targets; default what is hardly gone below, see the module.
        weights: of metrics in the bounded reward.
        reward: which formula.
        epsilon: of ``"archgym"``; see :func:`~sharpen.problems.arch.rewards.reward_of`.
        ranks: of the channel.
        interleave: see :class:`~sharpen.problems.arch.dram.DramController`.
        allow_no_refresh: see :func:`dram_space`.

    Raises:
        ConfigError: an unknown word, or targets or weights that do not fit.
    """

    def __init__(
        self,
        trace: Trace,
        spec: str | DramSpec = "DDR3-1600",
        *,
        target: Target = "joint",
        targets: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        reward: Reward = "bounded",
        epsilon: float = EPSILON,
        ranks: int = 1,
        interleave: bool = False,
        allow_no_refresh: bool = False,
    ) -> None:
        if target not in _METRICS:
            raise ConfigError(f"target={target!r} must be one of {', '.join(_METRICS)}.")
        if not len(trace):
            raise ConfigError(f"the trace '{trace.name}' has no requests.")
        self.controller = DramController(
            trace, spec, ranks=ranks, interleave=interleave, allow_no_refresh=allow_no_refresh
        )
        self.name = f"dram-{trace.name}-{target}"
        self.space = dram_space(allow_no_refresh=allow_no_refresh)
        self.objectives = (Objective("reward", "max"),)
        self.constraints: tuple[Constraint, ...] = ()
        self.goal = Goal.of(_METRICS[target], self._least(), targets, weights, reward, epsilon)

    @property
    def targets(self) -> dict[str, float]:
        """The target of each metric that counts."""
        return self.goal.targets

    def _least(self) -> dict[str, float]:
        """The targets of the module, from a run of the default controller."""
        found = self.controller.run()
        spec, t = self.controller.spec, self.controller.spec.timings
        each, counts = spec.energies_nj(), found.counts
        moved = each["read"] * counts["reads"] + each["write"] * counts["writes"]
        cycles = counts["cycles"] * self.controller.ranks
        kept = cycles * (each["idle"] + each["refresh"] / t.refi)
        return {
            "power": (moved + kept) / found.time_ns,
            "latency": (t.rcd + t.cl + t.burst) * t.clock_ns,
        }

    def simulate(self, config: Mapping[str, Any], *, commands: bool = False) -> DramResult:
        """Run the trace under a configuration of :attr:`space`."""
        known = {field.name for field in fields(DramPolicy)}
        policy = DramPolicy(**{name: value for name, value in config.items() if name in known})
        return self.controller.with_policy(policy).run(commands=commands)

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> dict[str, Any]:
        """The reward, and what was observed."""
        found = self.simulate(config)
        metrics = {
            "energy": found.energy_uj,
            "power": found.power_w,
            "latency": found.latency_ns,
            "bandwidth": found.bandwidth_bytes_s,
        }
        return {**self.score(metrics), **metrics}

    def score(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The objective of measured or predicted metrics."""
        return self.goal.score(metrics)


@overload
def make(
    name: Literal["dram-v0"] = ...,
    *,
    workload: str | Path | Trace | None = ...,
    requests: int = ...,
    seed: int = ...,
    **options: Any,
) -> DramProblem: ...
@overload
def make(
    name: Literal["accelerator-v0"],
    *,
    workload: str | Sequence[Layer] | None = ...,
    **options: Any,
) -> AcceleratorProblem: ...
@overload
def make(
    name: Literal["soc-v0"], *, workload: str | Sequence[Task] | None = ..., **options: Any
) -> SocProblem: ...
@overload
def make(name: str, **options: Any) -> DramProblem | AcceleratorProblem | SocProblem: ...
def make(
    name: str = "dram-v0",
    *,
    workload: str | Path | Trace | Sequence[Layer] | Sequence[Task] | None = None,
    requests: int = 4000,
    seed: int = 0,
    **options: Any,
) -> DramProblem | AcceleratorProblem | SocProblem:
    """A design problem by name.

    Args:
        name: ``"dram-v0"``, a :class:`DramProblem`; ``"accelerator-v0"``, an
            :class:`~sharpen.problems.arch.accelerator_problem.AcceleratorProblem`; or ``"soc-v0"``,
            a :class:`~sharpen.problems.arch.soc_problem.SocProblem`.
        workload: of a memory one of :data:`~sharpen.problems.arch.traces.WORKLOADS`, the path of a
            trace, or a trace; default ``"stream"``. Of an accelerator one of
            :data:`~sharpen.problems.arch.accelerator_problem.NETWORKS`, or layers; default
            ``"resnet-18"``. Of a system one of
            :data:`~sharpen.problems.arch.soc_problem.APPLICATIONS`, or tasks; default ``"vision"``.
        requests: how many a memory's workload that is made has.
        seed: of a memory's workload that is made.
        options: of the problem, such as ``target`` and ``spec``.

    Raises:
        ConfigError: an unknown name, workload or option.

    Examples:
        >>> problem = make("dram-v0", workload="random", target="latency", requests=200)
        >>> round(problem.targets["latency"], 2)
        32.5
    """
    if name not in PROBLEMS:
        raise ConfigError(
            f"there is no problem '{name}'.{did_you_mean(name, PROBLEMS)} "
            f"Known: {', '.join(PROBLEMS)}."
        )
    made = PROBLEMS[name]
    known = [*(made.__init__.__kwdefaults__ or ()), *(["spec"] if made is DramProblem else [])]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"'{name}' has no option '{option}'.{did_you_mean(option, known)} "
                f"It has: {', '.join(known)}."
            )
    given: Any = _DEFAULTS[name] if workload is None else workload
    if made is DramProblem:
        given = _trace(given, requests, seed)
    return made(given, **options)


def _trace(given: Any, requests: int, seed: int) -> Trace:
    if isinstance(given, Trace):
        return given
    is_path = isinstance(given, Path) or (given not in WORKLOADS and Path(given).suffix)
    return read_trace(given) if is_path else workload(str(given), requests=requests, seed=seed)


_DEFAULTS = {"dram-v0": "stream", "accelerator-v0": "resnet-18", "soc-v0": "vision"}
PROBLEMS: dict[str, type[DramProblem] | type[AcceleratorProblem] | type[SocProblem]] = {
    "dram-v0": DramProblem,
    "accelerator-v0": AcceleratorProblem,
    "soc-v0": SocProblem,
}
"""Design problems by name."""
