"""How many machines of which kind: the largest rate within limits, and the best counts.

Patel et al., Splitwise, ISCA 2024, arXiv 2311.18677, section V-A. A design is a kind of prompt
machine and one of token machine, or one kind that does both. Over counts (p, t)::

    rate(p, t)    the largest rate at which all limits hold: bisection, since more load never helps
    iso-power     max rate(p, t)   with  power(p, t) <= budget
    iso-cost      max rate(p, t)   with  cost(p, t)  <= budget
    min-cost, min-power, min-machines    the least with  rate(p, t) >= the rate asked for

For a maximum, p starts at the balance of a fluid model and climbs while the rate grows; t is then
the most that the budget allows. For a minimum, counts are tried in the order of what they cost,
from where the fluid model says that both phases are served.

Whether limits hold is asked of a function, which a simulator gives (``sharpen.serve.simulate``).

Differs from the paper: it sweeps a grid of counts and rates; rate(p, t) is taken to have one peak.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.model_spec import ModelSpec
from sharpen.plan.serving.machines import Machine, ServedModel, machine
from sharpen.plan.serving.traces import Trace

__all__ = ["DESIGNS", "Choice", "Design", "Objective", "make_design", "max_rate", "search_designs"]

Objective = Literal["iso-power", "iso-cost", "min-cost", "min-power", "min-machines"]
_OBJECTIVES = ("iso-power", "iso-cost", "min-cost", "min-power", "min-machines")

DESIGNS: dict[str, tuple[str, str | None]] = {
    "Baseline-A100": ("dgx-a100", None),
    "Baseline-H100": ("dgx-h100", None),
    "AA": ("dgx-a100", "dgx-a100"),
    "HH": ("dgx-h100", "dgx-h100"),
    "HA": ("dgx-h100", "dgx-a100"),
    "HHcap": ("dgx-h100", "dgx-h100-cap"),
}
"""Machines of prompts and of tokens; None where the first does both."""

_MOST_TRIES = 60


@dataclass(frozen=True, slots=True)
class Design:
    """Kinds of machines."""

    name: str
    prompt: Machine
    """Computes prompts; everything where ``token`` is None."""
    token: Machine | None = None

    def power_w(self, prompts: int, tokens: int) -> float:
        """Of so many machines."""
        return prompts * self.prompt.power_w + (tokens * self.token.power_w if self.token else 0)

    def cost_per_h(self, prompts: int, tokens: int) -> float:
        """Of so many machines, in dollars."""
        cost = prompts * self.prompt.cost_per_h
        return cost + (tokens * self.token.cost_per_h if self.token else 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """Counts of a design and what they reach."""

    design: Design
    prompts: int
    tokens: int
    rate: float
    """Requests a second within all limits."""

    @property
    def power_w(self) -> float:
        """Provisioned."""
        return self.design.power_w(self.prompts, self.tokens)

    @property
    def cost_per_h(self) -> float:
        """Dollars."""
        return self.design.cost_per_h(self.prompts, self.tokens)

    @property
    def machines(self) -> int:
        """In all."""
        return self.prompts + self.tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "design": self.design.name,
            "prompt_machines": self.prompts,
            "token_machines": self.tokens,
            "machines": self.machines,
            "rate": self.rate,
            "power_kw": self.power_w / 1e3,
            "cost_per_h": self.cost_per_h,
        }


Meets = Callable[[Design, int, int, float], bool]
"""Whether all limits hold for counts of prompt and token machines at a rate."""


def make_design(name: str, model: ServedModel, spec: ModelSpec | None = None) -> Design:
    """A design of :data:`DESIGNS`.

    Args:
        name: its name.
        model: what is served.
        spec: where given, times come from a roofline; else from the table that ships.

    Raises:
        ConfigError: an unknown name, or a model that one of its machines cannot serve.
    """
    if name not in DESIGNS:
        raise ConfigError(
            f"there is no design {name!r}.{did_you_mean(name, DESIGNS)} Known: "
            f"{', '.join(DESIGNS)}."
        )
    prompt, token = DESIGNS[name]
    second = machine(token, model, spec=spec) if token else None
    return Design(name, machine(prompt, model, spec=spec), second)


def max_rate(
    meets: Callable[[float], bool], guess: float, *, tolerance: float = 0.02, least: float = 0.0
) -> float:
    """The largest rate that ``meets``; 0 where none was found.

    Args:
        meets: whether a rate is within the limits; once false, false for larger ones.
        guess: where to begin, above 0.
        tolerance: relative width at which the bisection ends.
        least: a rate that must be met for the answer to matter; below it 0 is returned early.

    Example:
        >>> round(max_rate(lambda rate: rate <= 7.0, 20.0, tolerance=0.001), 2)
        7.0
    """
    if least > 0 and not meets(least):
        return 0.0
    low, high = least, guess if guess > least else 2 * least
    if meets(high):
        while True:
            low, high = high, 1.5 * high
            if high > 1e9 or not meets(high):
                break
    floor = high * 1e-3
    while high - low > tolerance * high and high > floor:
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def fluid_rates(
    design: Design, trace: Trace, *, batch: int = 2048, sequences: int = 64
) -> tuple[float, float]:
    """Requests a second that one prompt and one token machine serve at most, without waiting.

    A design of one kind gives half of what its machine serves twice, so that counts add up.
    """
    prompt, token = design.prompt, design.token or design.prompt
    context = trace.mean_prompt + trace.mean_output / 2
    fit = max(min(sequences, int(token.kv_capacity / context)), 1)
    prompts = batch / prompt.perf.iteration_s(batch, 0, 0) / trace.mean_prompt
    seconds = token.perf.iteration_s(0, fit, int(fit * context))
    return prompts, fit / seconds / max(trace.mean_output - 1, 1e-9)


def search_designs(
    designs: list[Design],
    trace: Trace,
    meets: Meets,
    objective: Objective,
    target: float,
    *,
    tolerance: float = 0.02,
) -> list[Choice]:
    """The best counts of each design, best first; designs that reach nothing are left out.

    Args:
        designs: to compare.
        trace: whose lengths count.
        meets: see :data:`Meets`.
        objective: what is sought.
        target: budget in watts (``iso-power``) or dollars an hour (``iso-cost``), else the rate in
            requests a second.
        tolerance: of rates, relative.

    Raises:
        ConfigError: an unknown objective, a target out of range, or an empty trace.
    """
    if objective not in _OBJECTIVES:
        raise ConfigError(
            f"there is no objective {objective!r}.{did_you_mean(objective, _OBJECTIVES)} Known: "
            f"{', '.join(_OBJECTIVES)}."
        )
    if not 0 < target < math.inf:
        raise ConfigError(f"the target {target} of {objective} must be above 0 and finite.")
    if not len(trace):
        raise ConfigError("the trace is empty.")
    found: list[Choice] = []
    for design in designs:
        if objective.startswith("iso"):
            one = _largest(design, trace, meets, objective, target, tolerance)
        else:
            one = _least(design, trace, meets, objective, target)
        if one is not None:
            found.append(one)
    if objective.startswith("iso"):
        return sorted(found, key=lambda one: -one.rate)
    return sorted(found, key=lambda one: _price(one.design, objective, one.prompts, one.tokens))


def _price(design: Design, objective: str, prompts: int, tokens: int) -> float:
    if objective.endswith("power"):
        return design.power_w(prompts, tokens)
    if objective.endswith("cost"):
        return design.cost_per_h(prompts, tokens)
    return prompts + tokens


def _largest(
    design: Design, trace: Trace, meets: Meets, objective: str, budget: float, tolerance: float
) -> Choice | None:
    fast, slow = fluid_rates(design, trace)
    tried: dict[int, Choice] = {}
    best = 0.0

    def tokens_beside(prompts: int) -> int:
        left = budget - _price(design, objective, prompts, 0)
        each = _price(design, objective, 0, 1)
        return int(left / each + 1e-9) if design.token is not None else 0

    def at(prompts: int) -> float:
        nonlocal best
        tokens = tokens_beside(prompts)
        if prompts < 1 or tokens < (design.token is not None):
            return 0.0
        if prompts not in tried:
            served = min(prompts * fast, tokens * slow) if tokens else prompts * fast
            rate = max_rate(
                lambda rate: meets(design, prompts, tokens, rate),
                served,
                tolerance=tolerance,
                least=best,
            )
            best = max(best, rate)
            tried[prompts] = Choice(design, prompts, tokens, rate)
        return tried[prompts].rate

    most = int(budget / _price(design, objective, 1, 0) + 1e-9)
    if design.token is None:
        at(most)
    else:
        p = min(
            range(1, max(most, 1) + 1),
            key=lambda p: -min(p * fast, max(tokens_beside(p), 0) * slow),
        )
        step = max(most // 8, 1)
        at(p)
        while step:
            if at(p + step) > at(p):
                p += step
            elif at(p - step) > at(p):
                p -= step
            else:
                step //= 2
    reached = [one for one in tried.values() if one.rate > 0]
    return max(reached, key=lambda one: one.rate, default=None)


def _least(
    design: Design, trace: Trace, meets: Meets, objective: str, rate: float
) -> Choice | None:
    fast, slow = fluid_rates(design, trace)
    if design.token is None:
        # More machines never serve less: double, then bisect.
        high = max(int(rate / fast), 1)
        while not meets(design, high, 0, rate):
            high *= 2
            if high > 4096:
                return None
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if meets(design, middle, 0, rate) else (middle, high)
        return Choice(design, high, 0, rate)
    first, second = max(int(0.8 * rate / fast), 1), max(int(0.5 * rate / slow), 1)
    for _, (prompts, tokens) in zip(
        range(_MOST_TRIES), _by_price(design, objective, first, second), strict=False
    ):
        if meets(design, prompts, tokens, rate):
            return Choice(design, prompts, tokens, rate)
    return None


def _by_price(design: Design, objective: str, first: int, second: int) -> Iterator[tuple[int, int]]:
    """Counts from (first, second) up, in the order of their price."""
    heap = [(_price(design, objective, first, second), first, second)]
    seen = {(first, second)}
    while True:
        _, prompts, tokens = heapq.heappop(heap)
        yield prompts, tokens
        for more in ((prompts + 1, tokens), (prompts, tokens + 1)):
            if more not in seen:
                seen.add(more)
                heapq.heappush(heap, (_price(design, objective, *more), *more))
