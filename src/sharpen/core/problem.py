"""Problems: what to search over, what to measure, and how to evaluate one configuration.

Minimization is the convention inside; an objective knows its own direction.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal, Protocol, overload, runtime_checkable

from sharpen.core.errors import ConfigError, DataError, KilledError, SharpenError, did_you_mean
from sharpen.core.feedback import Feedback, TracePoint, plain_number
from sharpen.core.space import Space

__all__ = [
    "Constraint",
    "Fidelity",
    "FunctionProblem",
    "Objective",
    "Problem",
    "TrialContext",
    "evaluate",
    "problem",
]

Answer = Literal["continue", "stop"]
_CONSTRAINT = re.compile(r"^\s*([A-Za-z_][\w.-]*)\s*(<=|>=|<|>)\s*(\S+)\s*$")
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, bound: value <= bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    ">": lambda value, bound: value > bound,
}


@dataclass(frozen=True, slots=True)
class Objective:
    """A value to make small or large."""

    name: str
    """Its key in what an evaluation returns."""

    direction: Literal["min", "max"] = "min"
    """Whether less or more is better."""

    unit: str = ""
    """For reports."""

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise ConfigError(f"direction must be min or max, got {self.direction!r} (Objective).")

    def loss(self, value: float) -> float:
        """``value`` such that less is better."""
        return value if self.direction == "min" else -value


@dataclass(frozen=True, slots=True)
class Constraint:
    """A value that must keep a bound for its configuration to count.

    Examples:
        >>> Constraint.parse("memory <= 8e9").margin(9e9)
        1000000000.0
    """

    name: str
    """Its key in what an evaluation returns."""

    op: Literal["<=", ">=", "<", ">"] = "<="
    """How the value must compare with the bound."""

    bound: float = 0.0
    """The bound."""

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``"memory <= 8e9"``.

        Raises:
            ConfigError: not of the form NAME OP NUMBER.
        """
        match = _CONSTRAINT.match(text)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise ConfigError(
                f"{text!r} is no constraint. Write NAME OP NUMBER with OP one of "
                f"{', '.join(_HOLDS)}, for example 'memory <= 8e9'."
            )
        op: Any = match[2]
        return cls(match[1], op, bound)

    def holds(self, value: float) -> bool:
        """Whether ``value`` keeps the bound."""
        return _HOLDS[self.op](value, self.bound)

    def margin(self, value: float) -> float:
        """By how much ``value`` exceeds the bound; positive is a violation."""
        return value - self.bound if self.op[0] == "<" else self.bound - value

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How closely a trial is measured: epochs, a share of the data, a mesh; ``high`` is the truth.

    Examples:
        >>> Fidelity("epochs", 1, 100, integer=True, overhead=0.1).cost(50)
        0.55
    """

    name: str
    """What it counts."""

    low: float
    """The coarsest."""

    high: float
    """The truth, which the study is about."""

    _: KW_ONLY

    log: bool = False
    """Whether equal ratios matter equally."""

    integer: bool = False
    """Whether only whole numbers are allowed."""

    overhead: float = 0.0
    """The share of a full trial's cost that does not depend on the fidelity."""

    costs: tuple[float, ...] | None = None
    """Cost of each level of an integer fidelity, where it is not in proportion to its value:
    sources of information that are not steps of one ladder."""

    def __post_init__(self) -> None:
        for name in ("low", "high", "overhead"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"low={self.low} must be less than high={self.high} (Fidelity).")
        if self.log and self.low <= 0:
            raise ConfigError(f"log=True needs low > 0, got low={self.low} (Fidelity).")
        if not 0 <= self.overhead < 1:
            raise ConfigError(f"overhead={self.overhead} must be in [0, 1) (Fidelity).")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ConfigError(f"low={self.low} and high={self.high} must be whole (Fidelity).")
        if self.costs is not None:
            object.__setattr__(self, "costs", tuple(float(c) for c in self.costs))
            levels = int(self.high - self.low) + 1
            if not self.integer or len(self.costs) != levels or min(self.costs) <= 0:
                raise ConfigError(
                    f"costs needs integer=True and {levels} positive numbers (Fidelity)."
                )
        elif self.low < 0:
            raise ConfigError(f"low={self.low} must be at least 0 without costs (Fidelity).")

    def check(self, value: Any) -> float:
        """``value`` as a fidelity.

        Raises:
            ConfigError: it is out of range or not whole.
        """
        number = plain_number(value)
        if not self.low <= number <= self.high or (self.integer and not number.is_integer()):
            kind = "a whole number" if self.integer else "a number"
            raise ConfigError(
                f"{self.name} must be {kind} from {self.low:g} to {self.high:g}, got {value!r}."
            )
        return number

    def cost(self, value: float) -> float:
        """Cost of a trial at ``value``, where the truth costs 1."""
        if self.costs is not None:
            return self.costs[int(value - self.low)] / self.costs[-1]
        return self.overhead + (1 - self.overhead) * value / self.high


@dataclass(slots=True, kw_only=True)
class TrialContext:
    """What an evaluation may know of its trial, and where it reports progress."""

    number: int = 0
    """The trial's number in its study."""

    seed: int = 0
    """A seed that is the trial's own; the same again when the trial is repeated after a crash."""

    attempt: int = 1
    """1 the first time; more after a crash."""

    fidelity: float | None = None
    """How closely to measure, of a problem with a :class:`Fidelity`; None is the truth."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """The conditions to measure under, of a problem with contexts."""

    on_report: Callable[[TracePoint], Answer] | None = None
    trace: list[TracePoint] = field(default_factory=list)
    """What was reported so far."""

    stopped: bool = False
    """Whether the study asked to stop."""

    _start: float = field(default_factory=time.perf_counter)

    def report(self, step: int, value: float) -> Answer:
        """Add a point to the trial's curve.

        Args:
            step: increasing step, epoch or budget.
            value: the first objective at that step.

        Returns:
            ``"stop"`` when the trial is not worth going on; return what you have then.
        """
        elapsed = time.perf_counter() - self._start
        point = TracePoint(int(step), plain_number(value), elapsed)
        self.trace.append(point)
        if self.on_report is not None and self.on_report(point) == "stop":
            self.stopped = True
        return "stop" if self.stopped else "continue"


@runtime_checkable
class Problem(Protocol):
    """Something to optimize; it never knows who optimizes it.

    A problem may have more than the protocol asks: ``fidelity``, a :class:`Fidelity`; ``contexts``,
    a :class:`~sharpen.core.space.Space` of conditions that it does not control; and
    ``observe(number, seed)``, which tells the conditions of a trial before it is asked for.
    """

    @property
    def name(self) -> str:
        """A name, the default for its study."""

    @property
    def space(self) -> Space:
        """What to search over."""

    @property
    def objectives(self) -> Sequence[Objective]:
        """What to make small or large, one or more."""

    @property
    def constraints(self) -> Sequence[Constraint]:
        """What must hold."""

    def evaluate(self, config: dict[str, Any], trial: TrialContext) -> Any:
        """Measure one configuration.

        Returns:
            A :class:`Feedback`, a mapping of values by name, a number (the only objective), or a
            sequence of numbers (the objectives in order).
        """


class FunctionProblem:
    """A problem made of a function; see :func:`problem`.

    Args:
        function: ``f(config)`` or ``f(config, trial)``.
        space: what to search over.
        objectives: one or more.
        constraints: any number.
        name: default the function's name.
        fidelity: how closely ``trial.fidelity`` asks to measure; None is always the same.
        contexts: conditions that ``trial.context`` tells; None is none.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        name: str | None = None,
        fidelity: Fidelity | None = None,
        contexts: Space | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise ConfigError(f"a problem needs a Space, got {space!r}.")
        self.function = function
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.name = name or getattr(function, "__name__", "problem")
        self.fidelity = fidelity
        self.contexts = contexts
        check_names(self.objectives, self.constraints)
        self._takes_trial = _takes_trial(function)
        if not self._takes_trial and (fidelity is not None or contexts is not None):
            raise ConfigError(
                f"{self.name} must take (config, trial) to see trial.fidelity and trial.context."
            )
        self.__doc__ = function.__doc__
        self.__module__ = getattr(function, "__module__", __name__)
        self.__qualname__ = getattr(function, "__qualname__", self.name)

    def evaluate(self, config: dict[str, Any], trial: TrialContext | None = None) -> Any:
        """Call the function; see :meth:`Problem.evaluate`."""
        if self._takes_trial:
            return self.function(config, trial or TrialContext())
        return self.function(config)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The function itself."""
        return self.function(*arguments, **named)

    def __repr__(self) -> str:
        return f"FunctionProblem({self.name!r}, {self.space!r})"

    def __reduce__(self) -> Any:
        # The decorated function is found under its own name only inside this object, so another
        # process loads the object by that name.
        if is_importable(self):
            return _load_attribute, (self.__module__, self.__qualname__)
        arguments = (self.function, self.space, self.objectives, self.constraints, self.name)
        return FunctionProblem, (*arguments, self.fidelity, self.contexts)


def is_importable(value: Any) -> bool:
    """Whether another process finds ``value`` under its module and qualified name."""
    if value.__module__ == "__main__":
        return False
    try:
        return _load_attribute(value.__module__, value.__qualname__) is value
    except (AttributeError, ImportError, KeyError):
        return False


def _load_attribute(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _takes_trial(function: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False  # a builtin without a signature takes the configuration alone
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    if not positional or len(needed) > 2:
        name = getattr(function, "__name__", function)
        raise ConfigError(f"{name} must take (config) or (config, trial), not {len(needed)}.")
    return len(positional) > 1 and (len(needed) == 2 or positional[1].name == "trial")


def check_names(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
    """Objectives exist and no name is used twice.

    Raises:
        ConfigError: otherwise.
    """
    if not objectives:
        raise ConfigError("a problem needs an objective: give minimize= or maximize=.")
    names = [o.name for o in objectives]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ConfigError(f"the objective '{min(repeated)}' is given twice.")
    bounds = [(c.name, c.op) for c in constraints]
    twice = {name for name, op in bounds if bounds.count((name, op)) > 1}
    if twice:
        raise ConfigError(f"the constraint on '{min(twice)}' is given twice.")


def as_objectives(
    minimize: str | Sequence[str] | None, maximize: str | Sequence[str] | None
) -> tuple[Objective, ...]:
    """Objectives from names, those to minimize first."""
    found: list[Objective] = []
    for names, direction in ((minimize, "min"), (maximize, "max")):
        for name in [names] if isinstance(names, str) else names or ():
            if not name:
                raise ConfigError("an objective needs a name.")
            found.append(Objective(name, direction))  # type: ignore[arg-type]
    return tuple(found)


def as_constraints(constraints: Sequence[str | Constraint]) -> tuple[Constraint, ...]:
    """Constraints from objects and texts."""
    if isinstance(constraints, str):
        constraints = [constraints]
    return tuple(Constraint.parse(c) if isinstance(c, str) else c for c in constraints)


def fidelity_of(problem: Problem) -> Fidelity | None:
    """The problem's fidelity, if it has one."""
    found: Fidelity | None = getattr(problem, "fidelity", None)
    return found


def contexts_of(problem: Problem) -> Space | None:
    """The space of the problem's contexts, if it has any."""
    found: Space | None = getattr(problem, "contexts", None)
    return found


@overload
def problem(
    space: Space,
    *,
    minimize: str | Sequence[str] | None = ...,
    maximize: str | Sequence[str] | None = ...,
    constraints: Sequence[str | Constraint] = ...,
    name: str | None = ...,
    fidelity: Fidelity | None = ...,
    contexts: Space | None = ...,
) -> Callable[[Callable[..., Any]], FunctionProblem]: ...
@overload
def problem(
    space: Space,
    function: Callable[..., Any],
    *,
    minimize: str | Sequence[str] | None = ...,
    maximize: str | Sequence[str] | None = ...,
    constraints: Sequence[str | Constraint] = ...,
    name: str | None = ...,
    fidelity: Fidelity | None = ...,
    contexts: Space | None = ...,
) -> FunctionProblem: ...
def problem(
    space: Space,
    function: Callable[..., Any] | None = None,
    *,
    minimize: str | Sequence[str] | None = None,
    maximize: str | Sequence[str] | None = None,
    constraints: Sequence[str | Constraint] = (),
    name: str | None = None,
    fidelity: Fidelity | None = None,
    contexts: Space | None = None,
) -> Any:
    """Make a function a problem, as a decorator or at once.

    The function takes ``(config)`` or ``(config, trial)`` and returns a number, a mapping with the
    objectives and constraints by name (further keys are kept as information), or a
    :class:`Feedback`.

    Args:
        space: what to search over.
        function: the function; None makes a decorator.
        minimize: names of values to make small.
        maximize: names of values to make large.
        constraints: such as ``"memory <= 8e9"``.
        name: default the function's name.
        fidelity: how closely ``trial.fidelity`` asks to measure.
        contexts: conditions that ``trial.context`` tells.

    Raises:
        ConfigError: no objective, a bad constraint, or a function of another form.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> from sharpen.core.space import Space
        >>> @problem(Space(x=Float(-5, 5)), minimize="loss")
        ... def parabola(config):
        ...     return {"loss": config["x"] ** 2}
        >>> evaluate(parabola, {"x": 2.0}).objectives
        {'loss': 4.0}
    """

    def make(wrapped: Callable[..., Any]) -> FunctionProblem:
        objectives = as_objectives(minimize, maximize)
        return FunctionProblem(
            wrapped, space, objectives, as_constraints(constraints), name, fidelity, contexts
        )

    return make if function is None else make(function)


def evaluate(
    problem: Problem, config: dict[str, Any], trial: TrialContext | None = None
) -> Feedback:
    """Evaluate a configuration; whatever goes wrong in user code becomes a failed feedback.

    Returns:
        Feedback whose ``cost["seconds"]`` is the wall time, with the reported trace. Its status is
        ``failed``, with the traceback as the error, when the evaluation raised, and ``pruned``
        when it was asked to stop.
    """
    trial = trial or TrialContext()
    trial._start = start = time.perf_counter()
    try:
        result = problem.evaluate(dict(config), trial)
        feedback = as_feedback(result, problem.objectives, problem.constraints)
    except KilledError as error:
        feedback = Feedback(status="failed", error=str(error), info={"killed": True})
    except Exception:
        feedback = Feedback(status="failed", error=_own_traceback())
    if trial.stopped and feedback.status == "ok":
        feedback = replace(feedback, status="pruned")
    return replace(
        feedback,
        cost={"seconds": time.perf_counter() - start, **feedback.cost},
        trace=tuple(feedback.trace) or tuple(trial.trace),
    )


def _own_traceback() -> str:
    """The current exception's traceback, without this module's frames.

    Our own errors say what is wrong themselves, so they come without one.
    """
    error = sys.exc_info()[1]
    assert error is not None
    if isinstance(error, SharpenError):
        return f"{type(error).__name__}: {error}"
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def as_feedback(
    result: Any, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> Feedback:
    """What an evaluation returned, as :class:`Feedback`.

    Raises:
        DataError: an objective or constraint is missing from it, or is no number.
    """
    if isinstance(result, Feedback):
        if result.status == "ok":
            for part, wanted in (
                (result.objectives, [o.name for o in objectives]),
                (result.constraints, [c.name for c in constraints]),
            ):
                _need(part, wanted)
        return result
    if not isinstance(result, Mapping):
        numbers = list(result) if isinstance(result, (list, tuple)) else [result]
        if len(numbers) != len(objectives) or constraints:
            wanted = [*(o.name for o in objectives), *(c.name for c in constraints)]
            raise DataError(
                f"the evaluation returned {result!r}; return a mapping with the keys "
                f"{', '.join(wanted)}."
            )
        result = {o.name: v for o, v in zip(objectives, numbers, strict=True)}
    wanted = [*(o.name for o in objectives), *(c.name for c in constraints)]
    _need(result, wanted)
    values: dict[str, float] = {}
    for name in wanted:
        try:
            values[name] = plain_number(result[name])
        except DataError as error:
            raise DataError(f"the evaluation's '{name}' {error}") from None
    return Feedback(
        objectives={o.name: values[o.name] for o in objectives},
        constraints={c.name: values[c.name] for c in constraints},
        info={str(k): _plain(v) for k, v in result.items() if k not in values},
    )


def _need(result: Mapping[Any, Any], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in result:
            given = [str(key) for key in result]
            raise DataError(
                f"the evaluation returned no '{name}'.{did_you_mean(name, given)} "
                f"It returned: {', '.join(given) or 'nothing'}."
            )


def _plain(value: Any) -> Any:
    """Plain data as JSON can hold it; anything else as text."""
    if hasattr(value, "item") and not isinstance(value, Mapping):
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
