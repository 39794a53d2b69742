"""Update rules as programs: a small language, its evaluator, and what a search needs of them.

Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu & Le, Symbolic Discovery of
Optimization Algorithms, NeurIPS 2023 (arXiv 2302.06675), found Lion among such programs::

    update = interp(gradient, momentum, 0.9)         interp(x, y, a) = (1 - a) x + a y
    update = sign(update)
    momentum = interp(gradient, momentum, 0.99)
    update = mul(update, lr)

A program runs once a step. It reads ``weight``, ``gradient`` and ``lr``, keeps ``momentum`` and
``velocity``, may use ``a``, ``b`` and ``c`` and leaves what is to be subtracted in ``update``; what
was not written yet is 0. A search over programs of at most N statements is one over the choices of
:func:`program_space`.

Differs from the paper: variables have fixed names; a program is a line of statements without
functions of its own. Time: that of its operations, one by one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.core.parameters import Categorical
from sharpen.core.space import Space
from sharpen.optim.engine.base import Common, Optimizer, Params
from sharpen.optim.engine.rule import Group, Rule
from sharpen.optim.engine.slots import SlotSpec

__all__ = [
    "ADAM",
    "LION",
    "MOMENTUM",
    "Program",
    "ProgramOptimizer",
    "ProgramRule",
    "Statement",
    "decode",
    "encode",
    "fingerprint",
    "program_space",
    "run",
    "simplify",
]

Argument = str | float
_KEPT = ("momentum", "velocity")
_WRITTEN = ("update", *_KEPT, "a", "b", "c")
_READ = ("weight", "gradient", "lr", *_WRITTEN)
_CONSTANTS = (0.0, 1e-8, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0, 2.0)
_STATEMENT = re.compile(r"^\s*(\w+)\s*=\s*(\w+)\s*\(([^()]*)\)\s*$")


def _interp(x: Tensor, y: Tensor, share: float | Tensor) -> Tensor:
    """(1 - a) x + a y, rounded as an average that is updated in place."""
    if isinstance(share, float):
        return (y * share).add_(x, alpha=1 - share)
    return x.lerp(y, share)


# Name: number of arguments, and the function.
_OPERATIONS: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "add": (2, torch.add),
    "sub": (2, torch.sub),
    "mul": (2, torch.mul),
    "div": (2, torch.div),
    "interp": (3, _interp),
    "sign": (1, torch.sign),
    "clip": (1, lambda x: x.clamp(-1, 1)),
    "abs": (1, torch.abs),
    "square": (1, torch.square),
    "sqrt": (1, lambda x: x.abs().sqrt()),
    "exp": (1, torch.exp),
    "log": (1, lambda x: x.abs().log()),
    "sin": (1, torch.sin),
    "tanh": (1, torch.tanh),
    "norm": (1, lambda x: torch.linalg.vector_norm(x).expand_as(x)),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """``out = op(arguments)``."""

    out: str
    op: str
    arguments: tuple[Argument, ...]

    def __str__(self) -> str:
        return f"{self.out} = {self.op}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Program:
    """Statements, in their order.

    Examples:
        >>> print(Program.parse("update = mul(gradient, lr)"))
        update = mul(gradient, lr)
    """

    statements: tuple[Statement, ...]

    @classmethod
    def parse(cls, text: str) -> Program:
        """Read a program, a statement a line.

        Raises:
            ConfigError: a line is no statement, or has an unknown name or a wrong number of
                arguments.
        """
        found = []
        for number, line in enumerate(text.strip().splitlines(), 1):
            match = _STATEMENT.match(line)
            if match is None:
                raise ConfigError(
                    f"line {number}, {line.strip()!r}, is no statement; write out = op(arguments)."
                )
            arguments = [part.strip() for part in match[3].split(",") if part.strip()]
            statement = Statement(match[1], match[2], tuple(_argument(a) for a in arguments))
            _check(statement, number)
            found.append(statement)
        return cls(tuple(found))

    def __str__(self) -> str:
        return "\n".join(map(str, self.statements))


def _argument(text: str) -> Argument:
    try:
        return float(text)
    except ValueError:
        return text


def _check(statement: Statement, number: int) -> None:
    if statement.op not in _OPERATIONS:
        hint = did_you_mean(statement.op, _OPERATIONS)
        raise ConfigError(f"line {number}: there is no operation {statement.op!r}.{hint}")
    count = _OPERATIONS[statement.op][0]
    if len(statement.arguments) != count:
        raise ConfigError(
            f"line {number}: {statement.op} takes {count} arguments, not "
            f"{len(statement.arguments)}."
        )
    if statement.out not in _WRITTEN:
        raise ConfigError(
            f"line {number}: {statement.out!r} cannot be written; choose one of "
            f"{', '.join(_WRITTEN)}."
        )
    for argument in statement.arguments:
        if isinstance(argument, str) and argument not in _READ:
            hint = did_you_mean(argument, _READ)
            raise ConfigError(f"line {number}: there is no variable {argument!r}.{hint}")


LION = Program.parse(
    """
    update = interp(gradient, momentum, 0.9)
    update = sign(update)
    momentum = interp(gradient, momentum, 0.99)
    update = mul(update, lr)
    """
)
"""Lion, as the search found it and the authors simplified it."""

ADAM = Program.parse(
    """
    momentum = interp(gradient, momentum, 0.9)
    a = square(gradient)
    velocity = interp(a, velocity, 0.999)
    a = sqrt(velocity)
    a = add(a, 1e-8)
    update = div(momentum, a)
    update = mul(update, lr)
    """
)
"""Adam without bias correction, which the authors' search started from."""

MOMENTUM = Program.parse(
    """
    momentum = interp(gradient, momentum, 0.9)
    update = mul(momentum, lr)
    """
)
"""Gradient descent with momentum."""


def run(
    program: Program,
    weight: Tensor,
    gradient: Tensor,
    momentum: Tensor,
    velocity: Tensor,
    lr: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a program.

    Args:
        program: what to run.
        weight: as the four others, of one shape and type; none is changed.
        gradient: at the weights.
        momentum: of the step before, at first 0.
        velocity: of the step before, at first 0.
        lr: learning rate.

    Returns:
        What to subtract from the weights; new momentum and velocity.
    """
    values: dict[str, Any] = {
        "weight": weight,
        "gradient": gradient,
        "momentum": momentum,
        "velocity": velocity,
        "lr": float(lr),
    }
    zero = torch.zeros_like(weight)
    for statement in program.statements:
        count, operation = _OPERATIONS[statement.op]
        given = [values.get(a, zero) if isinstance(a, str) else a for a in statement.arguments]
        # Functions of one argument, and the first of several, need a tensor.
        tensors = 2 if statement.op == "interp" else 1
        for place, value in enumerate(given[: min(tensors, count)]):
            if not isinstance(value, Tensor):
                given[place] = torch.full_like(weight, value)
        values[statement.out] = operation(*given)
    return values.get("update", zero), values["momentum"], values["velocity"]


def simplify(program: Program) -> Program:
    """The same program without statements that change no update, now or in later steps.

    Examples:
        >>> lines = "a = sin(weight)", "velocity = square(velocity)", "update = mul(gradient, lr)"
        >>> print(simplify(Program.parse(chr(10).join(lines))))
        update = mul(gradient, lr)
    """
    kept: set[int] = set()
    after = {"update"}  # needed at the end of a step
    while True:
        needed, found = set(after), set(kept)
        for place in reversed(range(len(program.statements))):
            statement = program.statements[place]
            if statement.out in needed:
                found.add(place)
                needed.discard(statement.out)
                needed |= {a for a in statement.arguments if isinstance(a, str)}
        wanted = after | (needed & set(_KEPT))
        if wanted == after and found == kept:
            return Program(tuple(program.statements[i] for i in sorted(kept)))
        after, kept = wanted, found


@lru_cache(maxsize=1)
def _probe() -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    return draw[0], list(draw[1:])


def fingerprint(program: Program) -> str | None:
    """The same text for programs that do the same, whatever their statements.

    Programs are told apart by what they do to a few weights in four steps, to six digits.

    Returns:
        None for a program that is of no use: an update that is not finite, or that does not depend
        on the gradient.
    """
    weight, gradients = _probe()
    rows = []
    for sign in (1.0, -1.0):
        w, m, v = weight, torch.zeros_like(weight), torch.zeros_like(weight)
        for gradient in gradients:
            update, m, v = run(program, w, sign * gradient, m, v, 0.1)
            rows.append(update)
            w = w - update
    if not all(bool(row.isfinite().all()) for row in (*rows, m, v)):
        return None
    if torch.equal(torch.stack(rows[:4]), torch.stack(rows[4:])):
        return None
    text = " ".join(f"{value:.5e}" for row in rows for value in row.tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def program_space(length: int) -> Space:
    """A space whose configurations are programs of up to ``length`` statements.

    Examples:
        >>> print(decode(program_space(2).default()) == Program(()))
        True
    """
    if length < 1:
        raise ConfigError(f"length={length} must be at least 1.")
    readable = [*_READ, *_CONSTANTS]
    space: dict[str, Any] = {}
    for i in range(length):
        space[f"op{i}"] = Categorical("none", *_OPERATIONS)
        space[f"out{i}"] = Categorical(*_WRITTEN)
        space |= {f"{name}{i}": Categorical(*readable) for name in ("x", "y")}
        space[f"share{i}"] = Categorical(*_CONSTANTS)
    return Space(**space)


def decode(config: Mapping[str, Any]) -> Program:
    """The program of a configuration of :func:`program_space`."""
    found = []
    for i in range(len(config) // 5):
        op = config[f"op{i}"]
        if op != "none":
            arguments = config[f"x{i}"], config[f"y{i}"], config[f"share{i}"]
            found.append(Statement(config[f"out{i}"], op, arguments[: _OPERATIONS[op][0]]))
    return Program(tuple(found))


def encode(program: Program, length: int) -> dict[str, Any]:
    """A configuration of :func:`program_space` that is this program.

    Raises:
        ConfigError: it is longer, or has numbers that are none of the space's.
    """
    if len(program.statements) > length:
        raise ConfigError(
            f"the program has {len(program.statements)} statements, more than length={length}."
        )
    space = program_space(length)
    config: dict[str, Any] = dict(space.default())
    for i, statement in enumerate(program.statements):
        config[f"op{i}"], config[f"out{i}"] = statement.op, statement.out
        config |= dict(zip((f"x{i}", f"y{i}", f"share{i}"), statement.arguments, strict=False))
    return dict(space.validate(config))


class ProgramRule(Rule):
    """The rule of a program; ``program`` of the group is its text."""

    name = "program"
    mixes = True  # by norm

    def slots(self, shape: tuple[int, ...], group: Group) -> dict[str, SlotSpec]:
        """What the program remembers, if it does."""
        text = group["program"]
        return {name: SlotSpec(shape, "signed") for name in _KEPT if name in text}

    def update(
        self, p: Tensor, g: Tensor, state: dict[str, Tensor], group: Group, t: int, index: int
    ) -> Tensor:
        """See :meth:`Rule.update`."""
        kept = [state[name] if name in state else torch.zeros_like(p) for name in _KEPT]
        step, *new = run(_parsed(group["program"]), p, g, kept[0], kept[1], float(group["lr"]))
        for name, value in zip(_KEPT, new, strict=True):
            if name in state:
                state[name].copy_(value)
        return step


@lru_cache(maxsize=64)
def _parsed(text: str) -> Program:
    return Program.parse(text)


class ProgramOptimizer(Optimizer):
    """An optimizer whose rule is a program.

    Args:
        params: see :class:`Optimizer`.
        program: what runs at each step, for each parameter by itself.
        lr: learning rate.
        weight_decay: decoupled, beside the program.
        common: options of every optimizer.

    Raises:
        ConfigError: an option is out of its range.

    Examples:
        >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        >>> optimizer = ProgramOptimizer([w], LION, lr=0.5)
        >>> w.square().sum().backward()
        >>> optimizer.step()
        >>> w.tolist()
        [0.5, -1.5]
    """

    rules: ClassVar[dict[str, Rule]] = {"program": ProgramRule()}

    def __init__(
        self,
        params: Params,
        program: Program | str,
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        parsed = Program.parse(program) if isinstance(program, str) else program
        defaults = {"program": str(parsed), "lr": lr, "weight_decay": weight_decay}
        super().__init__(params, defaults, common)
