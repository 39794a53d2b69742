"""Design problems on architecture simulators: find the parameters that meet a target.

Srivatsan Krishnan et al., "ArchGym: An Open-Source Gymnasium for Machine Learning Assisted
Architecture Design", ISCA 2023, arXiv:2306.08888.

::

    bounded    r = 1 / (1 + sum_m w_m |x_m - t_m| / t_m)           in (0, 1], 1 at the target
    archgym    r = prod_m t_m / max(|t_m - x_m|, epsilon t_m)      the published formula, capped

x is what the simulator measures, t the target, m runs over the metrics of the target: power,
latency, or both. Without targets of your own, t is what controllers hardly go below: the latency of
a lone read of a closed row, and the power of a channel that only stands by, refreshes and moves the
data in the time that the default controller takes.

An evaluation depends on its configuration alone: nothing is carried from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.parameters import Categorical, Fixed, Ordinal, Parameter
from sharpen.core.problem import Constraint, Objective, TrialContext
from sharpen.core.space import Space
from sharpen.problems.arch.dram import DramController, DramPolicy, DramResult
from sharpen.problems.arch.timings import DramSpec
from sharpen.problems.arch.traces import WORKLOADS, Trace, read_trace, workload

__all__ = ["PROBLEMS", "DramProblem", "dram_space", "make", "reward_of"]

Target = Literal["power", "latency", "joint"]
Reward = Literal["bounded", "archgym"]
_EPSILON = 0.01
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


def reward_of(
    metrics: Mapping[str, float],
    targets: Mapping[str, float],
    *,
    reward: Reward = "bounded",
    weights: Mapping[str, float] | None = None,
    epsilon: float = _EPSILON,
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
        epsilon: of ``"archgym"``; see :func:`reward_of`.
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
        epsilon: float = _EPSILON,
        ranks: int = 1,
        interleave: bool = False,
        allow_no_refresh: bool = False,
    ) -> None:
        if target not in _METRICS:
            raise ConfigError(f"target={target!r} must be one of {', '.join(_METRICS)}.")
        if reward not in get_args(Reward):
            raise ConfigError(f"reward={reward!r} must be one of {', '.join(get_args(Reward))}.")
        if not 0 < epsilon < 1:
            raise ConfigError(f"epsilon={epsilon} must lie between 0 and 1.")
        self.controller = DramController(
            trace, spec, ranks=ranks, interleave=interleave, allow_no_refresh=allow_no_refresh
        )
        self.name = f"dram-{trace.name}-{target}"
        self.space = dram_space(allow_no_refresh=allow_no_refresh)
        self.objectives = (Objective("reward", "max"),)
        self.constraints: tuple[Constraint, ...] = ()
        wanted = _METRICS[target]
        self.targets = {name: v for name, v in self._least().items() if name in wanted}
        self.targets.update(_numbers("targets", targets, wanted, 0.0))
        self.weights = dict.fromkeys(wanted, 1.0)
        self.weights.update(_numbers("weights", weights, wanted, -1e-300))
        self.reward: Reward = reward
        self.epsilon = epsilon

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
        value = reward_of(
            metrics, self.targets, reward=self.reward, weights=self.weights, epsilon=self.epsilon
        )
        return {"reward": value}


def _numbers(
    what: str, given: Mapping[str, float] | None, wanted: tuple[str, ...], above: float
) -> dict[str, float]:
    for name, value in (given or {}).items():
        if name not in wanted:
            raise ConfigError(f"{what} has '{name}'; this target has {', '.join(wanted)}.")
        if not above < value < float("inf"):
            kind = "positive" if above >= 0 else "at least 0"
            raise ConfigError(f"{what}[{name!r}]={value} must be {kind}.")
    return dict(given or {})


def make(
    name: str = "dram-v0",
    *,
    workload: str | Path | Trace = "stream",
    requests: int = 4000,
    seed: int = 0,
    **options: Any,
) -> DramProblem:
    """A design problem by name.

    Args:
        name: ``"dram-v0"``: :class:`DramProblem`.
        workload: one of :data:`~sharpen.problems.arch.traces.WORKLOADS`, the path of a trace, or a
            trace.
        requests: how many a workload that is made has.
        seed: of a workload that is made.
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
    known = DramProblem.__init__.__kwdefaults__ or {}
    for option in options:
        if option not in known and option != "spec":
            raise ConfigError(
                f"'{name}' has no option '{option}'.{did_you_mean(option, known)} "
                f"It has: spec, {', '.join(known)}."
            )
    return PROBLEMS[name](_trace(workload, requests, seed), **options)


def _trace(given: str | Path | Trace, requests: int, seed: int) -> Trace:
    if isinstance(given, Trace):
        return given
    is_path = isinstance(given, Path) or (given not in WORKLOADS and Path(given).suffix)
    return read_trace(given) if is_path else workload(str(given), requests=requests, seed=seed)


PROBLEMS: dict[str, Callable[..., DramProblem]] = {"dram-v0": DramProblem}
"""Design problems by name."""
