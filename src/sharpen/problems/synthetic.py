"""Functions with known minima, as problems.

Sonja Surjanovic and Derek Bingham, "Virtual Library of Simulation Experiments", Simon Fraser
University, 2013; the constrained problem: Robert B. Gramacy et al., "Modeling an Augmented
Lagrangian for Blackbox Constrained Optimization", Technometrics 58(1), 2016, equation 2, and the
one of Jacob R. Gardner et al., "Bayesian Optimization with Inequality Constraints", ICML 2014,
section 4.1; augmented functions: Jian Wu et al., "Practical Multi-fidelity Bayesian Optimization
for Hyperparameter Tuning", UAI 2019, section 4.1.

A problem is asked for by name with its variations::

    shifted     f(x - t), t drawn by the seed within an eighth of the range either way, so that no
                optimizer profits from a minimum at the middle
    rotated     f(m + Q (x - t - m)), Q an orthogonal matrix drawn by the seed, m the minimizer
    noise       a normal error of that standard deviation, from the trial's own seed

Only functions that are defined beyond their cube, with their minimum over the whole space, are
shifted and rotated.

Differs from the papers: None. Time O(d) an evaluation, O(d^2) rotated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.conditions import Eq
from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.parameters import Bool, Categorical, Float, Int, Parameter
from sharpen.core.problem import Constraint, Fidelity, Objective, TrialContext
from sharpen.core.space import Space, random_stream

__all__ = ["SYNTHETIC", "Synthetic", "synthetic"]

Floats = npt.NDArray[np.float64]
Function = Callable[[Floats], float]

# -- functions of a vector ------------------------------------------------------------------------


def _branin(x: Floats) -> float:
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return float((x[1] - b * x[0] ** 2 + c * x[0] - 6) ** 2 + 10 * (1 - t) * math.cos(x[0]) + 10)


_HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN3_A = np.array([[3.0, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_HARTMANN3_P = 1e-4 * np.array(
    [[3689.0, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]
)
_HARTMANN6_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN6_P = 1e-4 * np.array(
    [
        [1312.0, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(x: Floats, a: Floats, p: Floats, alpha: Floats = _HARTMANN_ALPHA) -> float:
    return -float(alpha @ np.exp(-(a * (x - p) ** 2).sum(1)))


def _hartmann3(x: Floats) -> float:
    return _hartmann(x, _HARTMANN3_A, _HARTMANN3_P)


def _hartmann6(x: Floats) -> float:
    return _hartmann(x, _HARTMANN6_A, _HARTMANN6_P)


def _ackley(x: Floats) -> float:
    root = math.sqrt(float((x * x).mean()))
    waves = float(np.cos(2 * math.pi * x).mean())
    return -20 * math.exp(-0.2 * root) - math.exp(waves) + 20 + math.e


def _levy(x: Floats) -> float:
    w = 1 + (x - 1) / 4
    inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + inner.sum() + last)


def _rosenbrock(x: Floats) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def _rastrigin(x: Floats) -> float:
    return float((10 + x * x - 10 * np.cos(2 * math.pi * x)).sum())


def _styblinski_tang(x: Floats) -> float:
    return float((x**4 - 16 * x**2 + 5 * x).sum() / 2)


def _michalewicz(x: Floats) -> float:
    i = np.arange(1, len(x) + 1)
    return -float((np.sin(x) * np.sin(i * x * x / math.pi) ** 20).sum())


_SHEKEL_BETA = np.array([1, 2, 2, 4, 4, 6, 3, 7, 5, 5]) / 10
_SHEKEL_C = np.array(
    [
        [4, 1, 8, 6, 3, 2, 5, 8, 6, 7],
        [4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6],
        [4, 1, 8, 6, 3, 2, 5, 8, 6, 7],
        [4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6],
    ]
)


def _shekel(x: Floats) -> float:
    return -float((1 / (_SHEKEL_BETA + ((x[:, None] - _SHEKEL_C) ** 2).sum(0))).sum())


def _cosine8(x: Floats) -> float:
    return float((x * x).sum() - 0.1 * np.cos(5 * math.pi * x).sum())


@dataclass(frozen=True, slots=True)
class _Known:
    """A function on a cube."""

    function: Function
    dimensions: int
    low: float
    high: float
    minimum: float
    at: Sequence[float]
    """A place of the minimum; one number stands for all coordinates."""

    any_dimensions: bool = False


_FUNCTIONS: dict[str, _Known] = {
    "hartmann3": _Known(
        _hartmann3, 3, 0, 1, -3.862779787333, (0.1145888792, 0.5556488934, 0.8525469858)
    ),
    "hartmann6": _Known(
        _hartmann6,
        6,
        0,
        1,
        -3.322368011415,
        (0.20168951, 0.15001069, 0.47687398, 0.27533243, 0.31165162, 0.65730053),
    ),
    "ackley": _Known(_ackley, 10, -32.768, 32.768, 0.0, (0.0,), True),
    "levy": _Known(_levy, 10, -10, 10, 0.0, (1.0,), True),
    "rosenbrock": _Known(_rosenbrock, 4, -5, 10, 0.0, (1.0,), True),
    "rastrigin": _Known(_rastrigin, 10, -5.12, 5.12, 0.0, (0.0,), True),
    "styblinski_tang": _Known(
        _styblinski_tang, 4, -5, 5, -39.16616570377142, (-2.903534027771177,), True
    ),
    "michalewicz": _Known(
        _michalewicz,
        5,
        0,
        math.pi,
        -4.687658179088,
        (2.20290552, 1.57079633, 1.28499157, 1.92305847, 1.72046977),
    ),
    "shekel": _Known(
        _shekel,
        4,
        0,
        10,
        -10.536443153484,
        (4.0007468656, 3.9995094801, 4.0007468656, 3.9995094801),
    ),
    "cosine8": _Known(_cosine8, 8, -1, 1, -0.8, (0.0,)),
}
_PER_COORDINATE = ("styblinski_tang",)  # whose minimum grows with the dimensions


class Synthetic:
    """A problem whose answer is known; see :func:`synthetic`.

    Attributes:
        name: of the function and its variations.
        space: what to search over.
        objectives: ``value``, to minimize.
        constraints: none, or those of the function.
        fidelity: of an augmented function, else None.
        minimum: the least feasible value.
        minimizer: a configuration that has it.
        noise: standard deviation of the error of what :meth:`evaluate` gives.
    """

    objectives = (Objective("value"),)

    def __init__(
        self,
        name: str,
        space: Space,
        function: Callable[[dict[str, Any], float | None], Mapping[str, float]],
        minimum: float,
        minimizer: dict[str, Any],
        *,
        constraints: Sequence[Constraint] = (),
        fidelity: Fidelity | None = None,
        noise: float = 0.0,
    ) -> None:
        self.name, self.space, self.minimum, self.minimizer = name, space, minimum, minimizer
        self.constraints, self.fidelity, self.noise = tuple(constraints), fidelity, noise
        self._function = function
        self._made_by: tuple[str, dict[str, Any]] | None = None

    def __reduce__(self) -> Any:
        # Functions made here cannot be pickled, so another process makes the problem anew.
        if self._made_by is None:
            return object.__reduce__(self)
        return _make, self._made_by

    def true_values(
        self, config: Mapping[str, Any], fidelity: float | None = None
    ) -> dict[str, float]:
        """Objective and constraints of a configuration without noise."""
        return dict(self._function(dict(config), fidelity))

    def evaluate(
        self, config: dict[str, Any], trial: TrialContext | None = None
    ) -> dict[str, float]:
        """See :meth:`~sharpen.core.problem.Problem.evaluate`."""
        trial = trial or TrialContext()
        values = self.true_values(config, trial.fidelity)
        if self.noise:
            values["value"] += self.noise * random_stream(trial.seed, trial.number).normal()
        return values

    def regret(self, config: Mapping[str, Any]) -> float:
        """How far a configuration's true value is above the minimum; infinite if infeasible."""
        values = self.true_values(config)
        if not all(c.holds(values[c.name]) for c in self.constraints):
            return math.inf
        return values["value"] - self.minimum


def synthetic(
    function: str,
    *,
    dimensions: int | None = None,
    shifted: bool = False,
    rotated: bool = False,
    noise: float = 0.0,
    seed: int = 0,
) -> Synthetic:
    """A function with a known minimum.

    Args:
        function: one of :data:`SYNTHETIC`.
        dimensions: where the function has any number of them; None is the usual one.
        shifted: see the module.
        rotated: see the module.
        noise: standard deviation of the error of each evaluation.
        seed: of shift and rotation.

    Raises:
        ConfigError: there is none, or it has no such variation.

    Examples:
        >>> problem = synthetic("branin")
        >>> round(problem.true_values({"x0": 0.0, "x1": 0.0})["value"], 3)
        55.602
        >>> problem.regret(problem.minimizer) < 1e-6
        True
    """
    options: dict[str, Any] = {
        "dimensions": dimensions,
        "shifted": shifted,
        "rotated": rotated,
        "noise": noise,
        "seed": seed,
    }
    return _make(function, options)


def _make(name: str, options: dict[str, Any]) -> Synthetic:
    problem = _special(name, **options) if name in _SPECIAL else _of_vector(name, **options)
    problem._made_by = (name, options)
    return problem


def _special(
    name: str, *, dimensions: int | None, shifted: bool, rotated: bool, noise: float, seed: int
) -> Synthetic:
    if dimensions is not None or shifted or rotated:
        raise ConfigError(f"'{name}' has neither dimensions=, shifted= nor rotated=.")
    return _SPECIAL[name](noise)


def _of_vector(
    name: str, *, dimensions: int | None, shifted: bool, rotated: bool, noise: float, seed: int
) -> Synthetic:
    if name not in _FUNCTIONS:
        raise ConfigError(
            f"there is no synthetic problem '{name}'.{did_you_mean(name, SYNTHETIC)} "
            f"Known: {', '.join(SYNTHETIC)}."
        )
    known = _FUNCTIONS[name]
    d = known.dimensions if dimensions is None else dimensions
    if d != known.dimensions and not known.any_dimensions:
        raise ConfigError(f"'{name}' has {known.dimensions} dimensions, got dimensions={d}.")
    if d < 2:
        raise ConfigError(f"dimensions={d} must be at least 2.")
    if (shifted or rotated) and not known.any_dimensions:
        raise ConfigError(f"'{name}' is known on its cube alone: neither shifted= nor rotated=.")
    rng = random_stream(seed, 0)
    best = np.broadcast_to(np.array(known.at, dtype=np.float64), (d,))
    width = known.high - known.low
    shift = rng.uniform(-width / 8, width / 8, d) if shifted else np.zeros(d)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0] if rotated else np.eye(d)
    names = [f"x{i}" for i in range(d)]

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        x = np.array([config[k] for k in names])
        return {"value": known.function(best + turn @ (x - shift - best))}

    place = best + shift
    marks = [m for m, on in (("shifted", shifted), ("rotated", rotated)) if on]
    if noise:
        marks.append("noisy")
    return Synthetic(
        "-".join([*marks, f"{name}{d}" if known.any_dimensions else name]),
        Space({k: Float(known.low, known.high) for k in names}),
        function,
        known.minimum * (d if name in _PER_COORDINATE else 1),
        {k: float(v) for k, v in zip(names, place, strict=True)},
        noise=noise,
    )


# -- problems of other forms ----------------------------------------------------------------------


def _branin_problem(noise: float) -> Synthetic:
    return Synthetic(
        "noisy-branin" if noise else "branin",
        Space(x0=Float(-5, 10), x1=Float(0, 15)),
        lambda config, fidelity: {"value": _branin(np.array([config["x0"], config["x1"]]))},
        0.39788735772973816,
        {"x0": math.pi, "x1": 2.275},
        noise=noise,
    )


def _gramacy(noise: float) -> Synthetic:
    """A linear objective between two curved constraints."""

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        x, y = config["x0"], config["x1"]
        waves = math.sin(2 * math.pi * (x * x - 2 * y)) / 2
        return {"value": x + y, "c0": 1.5 - x - 2 * y - waves, "c1": x * x + y * y - 1.5}

    return Synthetic(
        "gramacy",
        Space(x0=Float(0, 1), x1=Float(0, 1)),
        function,
        0.5997880520,
        {"x0": 0.19512270, "x1": 0.40466537},
        constraints=(Constraint("c0"), Constraint("c1")),
        noise=noise,
    )


def _gardner(noise: float) -> Synthetic:
    """A wavy objective whose feasible region is a few small islands."""

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        x, y = config["x0"], config["x1"]
        value = math.sin(x) + y
        return {"value": value, "c0": math.sin(x) * math.sin(y) + 0.95}

    edge = math.asin(0.95)
    return Synthetic(
        "gardner",
        Space(x0=Float(0, 6), x1=Float(0, 6)),
        function,
        edge - 1,
        {"x0": 1.5 * math.pi, "x1": edge + 1e-9},
        constraints=(Constraint("c0"),),
        noise=noise,
    )


_BINARY, _REAL = 10, 3


def _mixed_ackley(noise: float) -> Synthetic:
    """Ackley's function of ten switches and three real numbers, its minimum off every middle."""
    shift = np.array([0.23, -0.41, 0.37])
    on = np.array([i % 3 == 0 for i in range(_BINARY)])

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        wrong = np.array([config[f"b{i}"] != on[i] for i in range(_BINARY)], dtype=float)
        real = np.array([config[f"x{i}"] for i in range(_REAL)]) - shift
        return {"value": _ackley(np.concatenate([wrong, real]))}

    parameters: dict[str, Parameter] = {f"b{i}": Bool() for i in range(_BINARY)}
    parameters |= {f"x{i}": Float(-1, 1) for i in range(_REAL)}
    best: dict[str, Any] = {f"b{i}": bool(on[i]) for i in range(_BINARY)}
    best |= {f"x{i}": float(shift[i]) for i in range(_REAL)}
    return Synthetic("mixed_ackley", Space(parameters), function, 0.0, best, noise=noise)


def _conditional(noise: float) -> Synthetic:
    """Three branches with parameters of their own; the best branch needs its own tuning."""

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        x, kind = config["x"], config["kind"]
        if kind == "flat":
            return {"value": 1 + 0.1 * x * x}
        if kind == "bowl":
            return {"value": 0.5 + (x - 0.6) ** 2 + (config["a"] - 0.2) ** 2}
        deep = (math.log10(config["rate"]) + 3) ** 2 / 4 + (config["depth"] - 5) ** 2 / 10
        return {"value": (x + 0.3) ** 2 + deep}

    space = Space(
        x=Float(-1, 1),
        kind=Categorical("flat", "bowl", "deep"),
        a=Float(0, 1).active_if(Eq("kind", "bowl")),
        rate=Float(1e-5, 1e-1, log=True).active_if(Eq("kind", "deep")),
        depth=Int(1, 12).active_if(Eq("kind", "deep")),
    )
    best = {"x": -0.3, "kind": "deep", "rate": 1e-3, "depth": 5}
    return Synthetic("conditional", space, function, 0.0, best, noise=noise)


def _augmented_branin(noise: float) -> Synthetic:
    """Branin's function with a coefficient that is wrong by 0.1 (1 - s) at fidelity s."""

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        s = 1.0 if fidelity is None else fidelity
        x, y = config["x0"], config["x1"]
        b, c, t = 5.1 / (4 * math.pi**2) - 0.1 * (1 - s), 5 / math.pi, 1 / (8 * math.pi)
        return {"value": (y - b * x * x + c * x - 6) ** 2 + 10 * (1 - t) * math.cos(x) + 10}

    return Synthetic(
        "augmented_branin",
        Space(x0=Float(-5, 10), x1=Float(0, 15)),
        function,
        0.39788735772973816,
        {"x0": math.pi, "x1": 2.275},
        fidelity=Fidelity("s", 0, 1, overhead=0.01),
        noise=noise,
    )


def _augmented_hartmann(noise: float) -> Synthetic:
    """Hartmann's function of six with a first weight that is wrong by 0.1 (1 - s)."""
    names = [f"x{i}" for i in range(6)]

    def function(config: dict[str, Any], fidelity: float | None) -> dict[str, float]:
        s = 1.0 if fidelity is None else fidelity
        alpha = _HARTMANN_ALPHA - np.array([0.1 * (1 - s), 0, 0, 0])
        x = np.array([config[k] for k in names])
        return {"value": _hartmann(x, _HARTMANN6_A, _HARTMANN6_P, alpha)}

    known = _FUNCTIONS["hartmann6"]
    return Synthetic(
        "augmented_hartmann",
        Space({k: Float(0, 1) for k in names}),
        function,
        known.minimum,
        dict(zip(names, known.at, strict=True)),
        fidelity=Fidelity("s", 0, 1, overhead=0.01),
        noise=noise,
    )


_SPECIAL: dict[str, Callable[[float], Synthetic]] = {
    "branin": _branin_problem,
    "gramacy": _gramacy,
    "gardner": _gardner,
    "mixed_ackley": _mixed_ackley,
    "conditional": _conditional,
    "augmented_branin": _augmented_branin,
    "augmented_hartmann": _augmented_hartmann,
}

SYNTHETIC: tuple[str, ...] = tuple(sorted((*_FUNCTIONS, *_SPECIAL)))
"""Names of all problems."""
