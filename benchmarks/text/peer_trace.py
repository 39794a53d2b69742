"""What trace-opt makes of programs; runs in an interpreter that has it and nothing of ours.

Reads programs as JSON on stdin and writes what it finds as JSON on stdout. A program is a list of
steps: ``["parameter", value]``, ``["input", value]`` or ``["op", [indexes of steps]]`` (the sum of
its inputs plus one); feedback is given on the last step, from which ``trace-opt`` collects the
minimal subgraph. Sections are sets of indexes. The list of nodes is sorted by level first: unsorted
lists are merged within the package, and then some computed values are printed as inputs.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

with contextlib.redirect_stdout(sys.stderr):  # the package greets on stdout
    from opto.optimizers.optoprime import node_to_function_feedback
    from opto.trace import bundle, node
    from opto.trace.nodes import GRAPH
    from opto.trace.propagators import GraphPropagator


@bundle("[combine] the sum of its inputs plus one")
def combine(*parts: int) -> int:
    return sum(parts) + 1


def build(steps: list[list[Any]]) -> list[Any]:
    """The nodes of a program."""
    made: list[Any] = []
    for kind, given in steps:
        if kind == "op":
            made.append(combine(*[made[k] for k in given]))
        else:
            made.append(node(given, name="value", trainable=kind == "parameter"))
    return made


def sections(steps: list[list[Any]]) -> dict[str, list[int]]:
    """Indexes of the steps in each section."""
    GRAPH.clear()
    made = build(steps)
    made[-1].backward("feedback", propagator=GraphPropagator(), retain_graph=True)
    parameters = [n for n, (kind, _) in zip(made, steps, strict=True) if kind == "parameter"]
    reached = [p for p in parameters if p.feedback]
    if not reached:
        return {"variables": [], "code": [], "inputs": [], "others": [], "outputs": []}
    total = sum(
        (GraphPropagator().aggregate(p.feedback) for p in reached[1:]),
        GraphPropagator().aggregate(reached[0].feedback),
    )
    total.graph.sort(key=lambda pair: pair[0])
    found = node_to_function_feedback(total)
    index = {n.py_name: k for k, n in enumerate(made)}
    trainable = {n.py_name for n in parameters}
    code = [line.split(" = ")[0] for _, line in found.graph]
    return {
        "variables": sorted(index[n] for n in found.roots if n in trainable),
        "code": sorted(index[n] for n in code),
        "inputs": sorted(index[n] for n in found.roots if n not in trainable),
        "others": sorted(index[n] for n in found.others),
        "outputs": sorted(index[n] for n in found.output),
    }


def chain(shape: str, length: int) -> dict[str, float]:
    """Seconds to record a chain of operations and to send feedback back through it."""
    GRAPH.clear()
    begin = time.perf_counter()
    shared = value = node(0, trainable=True)
    for _ in range(length):
        if shape == "chain":
            value = combine(value)
        elif shape == "operators":
            value = value + 1
        else:
            value = combine(value, shared)
    recorded = time.perf_counter()
    value.backward("feedback", propagator=GraphPropagator())
    return {"record_s": recorded - begin, "backward_s": time.perf_counter() - recorded}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    if request["do"] == "sections":
        answer: Any = [sections(steps) for steps in request["programs"]]
    else:
        answer = [chain(shape, length) for shape, length in request["chains"]]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
