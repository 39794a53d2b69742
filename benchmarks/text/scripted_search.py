"""Numeric programs improved by one script in place of a language model: one source, two imports.

``run(trace, ...)`` takes a namespace with ``node`` (a trainable number by name) and ``optimizer``
(OptoPrime of some nodes and a function of a prompt). The script reads the score and the variables
of the prompt and is a (1+1) evolution strategy with the one-fifth rule; it imports neither package,
so whatever differs is the optimizers' own. Run as a script it answers requests with trace-opt.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

__all__ = ["PROGRAMS", "run"]

_VARIABLE = re.compile(r"^\(float\) ([a-z])[0-9]* ?= ?(\S+)$")
_SCORE = re.compile(r"^Score: (\S+)", re.MULTILINE)
_NAMED = re.compile(r"^\(float\) ([a-z][0-9]*)")


def _square(values: Sequence[Any], constants: Sequence[float]) -> Any:
    (x,), (a, b, c) = values, constants
    return ((x + a) * b - c) ** 2.0


def _fit(values: Sequence[Any], constants: Sequence[float]) -> Any:
    a, b, c = values
    right = constants
    total: Any = 0.0
    for x in (-2.0, -1.0, 0.0, 1.5, 3.0):
        want = (x + right[0]) * right[1] - right[2]
        total = ((a + x) * b - c - want) ** 2.0 + total
    return total


def _valley(values: Sequence[Any], constants: Sequence[float]) -> Any:
    x, y = values
    return (y - x**2.0) ** 2.0 * 100.0 + (x - 1.0) ** 2.0


PROGRAMS: dict[str, tuple[str, float, Callable[..., Any]]] = {
    "square": ("x", 10.0, _square),
    "fit": ("abc", 5.0, _fit),
    "valley": ("xy", 2.0, _valley),
}
"""Names of the variables, the bound of their size, and the loss."""


class Script:
    """Reads a prompt, replies with other values."""

    def __init__(self, bound: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.bound = bound
        self.step = bound / 3
        self.best: tuple[float, dict[str, float]] = (-math.inf, {})

    def __call__(self, prompt: str) -> str:
        problem = prompt[prompt.rindex("#Variables") :]
        shown = problem[: problem.index("#Constraints")].splitlines()
        names = [match[1] for match in map(_NAMED.match, shown) if match]
        found = [match for match in map(_VARIABLE.match, shown) if match]
        values = {match[1]: float(match[2]) for match in found}
        said = _SCORE.findall(problem[problem.index("#Feedback") :])
        score = float(said[0])
        if score > self.best[0]:
            self.best = (score, values)
            self.step = min(self.step * 1.5, self.bound)
        else:
            self.step = max(self.step * 1.5**-0.25, 1e-9)
        new = {
            name: max(-self.bound, min(self.bound, value + self.random.gauss(0, self.step)))
            for name, value in sorted(self.best[1].items())
        }
        suggestion = {name: new[name[0]] for name in sorted(names)}
        return json.dumps({"reasoning": "a step", "answer": "", "suggestion": suggestion})


def run(trace: Any, program: str, constants: list[float], seed: int, steps: int) -> dict[str, Any]:
    """The loss at each step, and seconds of all."""
    names, bound, loss = PROGRAMS[program]
    nodes = [trace.node(-bound / 2, name) for name in names]
    optimizer = trace.optimizer(nodes, Script(bound, seed))
    losses = []
    begin = time.perf_counter()
    for _ in range(steps):
        output = loss(nodes, constants)
        losses.append(output.data)
        optimizer.zero_feedback()
        optimizer.backward(output, f"Score: {-output.data!r}")
        optimizer.step()
    return {"losses": losses, "seconds": time.perf_counter() - begin}


def _peer() -> Any:
    """trace-opt under the names of ``run``."""
    with contextlib.redirect_stdout(sys.stderr):  # the package greets on stdout
        from opto import trace  # type: ignore[import-not-found]
        from opto.optimizers import OptoPrime  # type: ignore[import-not-found]

    class Model:
        """Replies as a server's client does."""

        def __init__(self, script: Callable[[str], str]) -> None:
            self.script = script

        def __call__(self, messages: list[dict[str, str]], **_: Any) -> Any:
            text = self.script(messages[-1]["content"])
            message = SimpleNamespace(message=SimpleNamespace(content=text))
            return SimpleNamespace(choices=[message])

    def optimizer(nodes: list[Any], script: Callable[[str], str]) -> Any:
        return OptoPrime(nodes, llm=Model(script))

    return SimpleNamespace(
        node=lambda value, name: trace.node(value, name=name, trainable=True), optimizer=optimizer
    )


def main() -> None:
    """Answer one request: arguments of ``run``, for each run."""
    peer = _peer()
    json.dump([run(peer, *one) for one in json.load(sys.stdin)["runs"]], sys.stdout)


if __name__ == "__main__":
    main()
