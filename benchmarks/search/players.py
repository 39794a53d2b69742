"""Our optimizers and other packages' behind one ask and tell, for benchmarks that compare them.

A peer is a package in another interpreter, which runs ``peers.py``. BENCH_PEERS_PYTHON names the
one that has them; HEBO and SMAC, which do not go with the others, have one each, named by
BENCH_HEBO_PYTHON and BENCH_SMAC_PYTHON.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sharpen.core.optimizer import make_optimizer
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.problem import Constraint, Objective
from sharpen.core.space import Space

__all__ = ["VERSIONS", "Own", "Peer", "Played", "can_play", "describe"]

VERSIONS = {"gp": 5}
"""How often each method has changed, 1 where it is not named; a journal counts no older runs."""

_INTERPRETERS = {"hebo": "BENCH_HEBO_PYTHON", "smac": "BENCH_SMAC_PYTHON"}


class Played(Protocol):
    """What a player needs of a problem."""

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]


class Own:
    """One of our optimizers."""

    def __init__(self, method: str, problem: Played, seed: int, budget: int) -> None:
        self.optimizer = make_optimizer(
            method,
            problem.space,
            problem.objectives,
            problem.constraints,
            seed=seed,
            budget=budget,
        )
        self.spent = 0.0

    def ask(self) -> tuple[dict[str, Any], float]:
        """A configuration, and the processor's seconds since the last evaluation ended."""
        begin = time.process_time()
        self.candidate = self.optimizer.ask()[0]
        seconds = self.spent + time.process_time() - begin
        return self.candidate.config, seconds

    def tell(self, values: dict[str, float]) -> None:
        """What came of it."""
        begin = time.process_time()
        self.optimizer.tell([self.candidate.result(values)])
        self.spent = time.process_time() - begin

    def recommend(self) -> dict[str, Any] | None:
        """What the method would use now, where it says."""
        return self.optimizer.recommend().config if self.optimizer.name == "gp" else None


class Peer:
    """A package in the other interpreter.

    Args:
        method: its name in ``peers.py``.
        problem: what it searches.
        seed: of its randomness.
        budget: evaluations planned.
        is_told_default: whether it begins with the space's default, as our own methods do.

    Raises:
        ValueError: the method cannot take the problem.
    """

    def __init__(
        self, method: str, problem: Played, seed: int, budget: int, is_told_default: bool = False
    ) -> None:
        self.problem = problem
        self.process = _process(os.environ[_interpreter(method)])
        start = {
            "do": "start",
            "method": method,
            "space": describe(problem.space),
            "constraints": len(problem.constraints),
            "seed": seed,
            "budget": budget,
        }
        if is_told_default:
            default = problem.space.default()
            start["default"] = [default.get(name) for name in problem.space]
        started = self._say(start)
        if "refused" in started:
            raise ValueError(started["refused"])

    def _say(self, document: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(document) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            _process.cache_clear()
            raise RuntimeError(f"the peer ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _config(self, x: list[Any]) -> dict[str, Any]:
        config = {}
        for (name, parameter), value in zip(self.problem.space.items(), x, strict=True):
            if isinstance(parameter, Float) and value is not None:
                value = min(max(value, parameter.low), parameter.high)
            config[name] = value
        return self.problem.space.validate(self.problem.space.active(config))

    def ask(self) -> tuple[dict[str, Any], float]:
        """A configuration, and the processor's seconds since the last evaluation ended."""
        answer = self._say({"do": "ask"})
        return self._config(answer["x"]), answer["seconds"]

    def tell(self, values: dict[str, float]) -> None:
        """What came of it."""
        margins = [c.margin(values[c.name]) for c in self.problem.constraints]
        value = values[self.problem.objectives[0].name]
        self._say({"do": "tell", "value": value, "constraints": margins})

    def recommend(self) -> dict[str, Any] | None:
        """What the method would use now, where it says."""
        x = self._say({"do": "recommend"})["x"]
        return None if x is None else self._config(x)


@cache
def _process(python: str) -> subprocess.Popen[str]:
    """The process of an interpreter, which plays one run after the other and keeps its imports."""
    process = subprocess.Popen(
        [python, str(Path(__file__).with_name("peers.py"))],
        env={**os.environ, "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.kill)
    return process


def _interpreter(method: str) -> str:
    return _INTERPRETERS.get(method, "BENCH_PEERS_PYTHON")


def can_play(method: str) -> bool:
    """Whether the interpreter of a peer is named."""
    return _interpreter(method) in os.environ


def describe(space: Space) -> list[list[Any]]:
    """A space as ``peers.py`` reads it.

    Raises:
        ValueError: a parameter or condition that peers are not told of.
    """
    names = list(space)
    entries: list[list[Any]] = []
    for name, parameter in space.items():
        options: dict[str, Any] = {}
        match parameter:
            case Float(step=None) | Int(step=1):
                kind = "float" if isinstance(parameter, Float) else "int"
                entry: list[Any] = [kind, parameter.low, parameter.high]
                if parameter.log:
                    options["log"] = True
            case Bool():
                entry = ["bool"]
            case Categorical():
                entry = ["choice", list(parameter.choices)]
            case _:
                raise ValueError(f"peers are not told of '{name}', {parameter}")
        if parameter.condition is not None:
            [parent] = parameter.condition.names()
            choices = getattr(space[parent], "choices", (False, True))
            values = [v for v in choices if parameter.condition.holds({parent: v}) is True]
            options["if"] = [names.index(parent), values]
        entries.append([*entry, options] if options else entry)
    return entries
