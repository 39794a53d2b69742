"""Minimal subgraphs and sweeps against their definitions on random programs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.text.sweep import Propagator, sweep


@st.op
def combine(*parts: int) -> int:
    return sum(parts) + 1


def random_program(seed: int, size: int) -> tuple[list[st.Node], list[st.Parameter]]:
    """Roots, parameters and operations of one to four inputs, which may be the same."""
    draw = random.Random(seed)
    nodes: list[st.Node] = []
    parameters: list[st.Parameter] = []
    for k in range(size):
        kind = draw.random()
        if not nodes or kind < 0.15:
            parameters.append(st.Parameter(k, f"p{k}"))
            nodes.append(parameters[-1])
        elif kind < 0.3:
            nodes.append(st.node(k))
        else:
            nodes.append(combine(*draw.choices(nodes, k=draw.randint(1, 4))))
    return nodes, parameters


def reachable(start: st.Node) -> set[st.Node]:
    found = {start}
    for parent in start.inputs:
        found |= reachable(parent)
    return found


@settings(max_examples=60, deadline=None)
@given(hyp.integers(0, 10_000), hyp.integers(1, 25), hyp.booleans())
def test_the_minimal_subgraph_is_its_definition(seed: int, size: int, one: bool) -> None:
    nodes, parameters = random_program(seed, size)
    output = nodes[-1]
    chosen = parameters[:1] if one else parameters
    above = reachable(output)
    on_the_way = {v for v in above if reachable(v) & set(chosen)}
    members = on_the_way | {parent for v in on_the_way for parent in v.inputs}
    graph = st.minimal_subgraph(output, chosen)
    assert set(graph.nodes) == members
    assert set(graph.variables) == set(chosen) & above
    code = {v for v in members if v.inputs and set(v.inputs) <= members and v not in chosen}
    assert set(graph.code) == code
    assert set(graph.inputs) == members - code - set(graph.variables)
    assert set(graph.others) == code - {output}
    for part in (graph.code, graph.inputs, graph.variables, graph.nodes):
        assert list(part) == sorted(part, key=lambda n: n.id)
    assert graph.is_empty == (not set(chosen) & above)


def test_what_is_not_on_the_way_to_a_parameter_stays_a_value() -> None:
    x, y = st.Parameter(2, "x"), st.Parameter(5, "y")
    product = y * 3
    out = (x * 2 + product) + 1
    graph = st.minimal_subgraph(out, [x])
    assert product in graph.inputs
    assert y not in graph.nodes
    other = st.minimal_subgraph(out, [y])
    assert x not in other.nodes
    assert set(st.minimal_subgraph(out).variables) == {x, y}


class Paths(Propagator[tuple[int, ...]]):
    """Counts the paths from the outputs: its messages are sums of what arrived."""

    def __init__(self, concurrency: int = 1) -> None:
        self.concurrency = concurrency
        self.merged: list[int] = []

    def start(self, output: st.Node, feedback: st.Feedback) -> tuple[int, ...]:
        return (int(feedback.score or 0),)

    def merge(self, node: st.Node, messages: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        self.merged.append(node.id)
        return (sum(count for message in messages for count in message),)

    def push(self, node: st.Node, slot: int, message: tuple[int, ...]) -> tuple[int, ...]:
        return message


def paths(node: st.Node, target: st.Node) -> int:
    return (node is target) + sum(paths(parent, target) for parent in node.inputs)


@settings(max_examples=40, deadline=None)
@given(hyp.integers(0, 10_000), hyp.integers(1, 18), hyp.sampled_from([1, 4]))
def test_a_sweep_visits_each_node_once_and_follows_every_path(
    seed: int, size: int, concurrency: int
) -> None:
    nodes, parameters = random_program(seed, size)
    outputs = [nodes[-1], nodes[len(nodes) // 2]]
    rule = Paths(concurrency)
    score = st.Feedback(score=1)
    got = sweep([(output, score) for output in outputs], rule)
    assert len(rule.merged) == len(set(rule.merged))
    received = {parameter: sum(sum(m) for m in messages) for parameter, messages in got}
    for parameter in parameters:
        assert received.get(parameter, 0) == sum(paths(output, parameter) for output in outputs)
    assert [p.id for p, _ in got] == sorted(p.id for p, _ in got)


def test_messages_are_in_an_order_that_timing_does_not_change() -> None:
    class Names(Propagator[str]):
        concurrency = 8

        def start(self, output: st.Node, feedback: st.Feedback) -> str:
            return str(feedback.text)

        def merge(self, node: st.Node, messages: Sequence[str]) -> str:
            return "+".join(messages)

        def push(self, node: st.Node, slot: int, message: str) -> str:
            return f"{message}/{node.name}.{slot}"

    x = st.Parameter(1, "x")
    first, second = combine(x, x), combine(x)
    first.name, second.name = "first", "second"
    out = combine(first, second, first)
    out.name = "out"
    ((_, messages),) = sweep([(out, st.Feedback(text="f"))], Names())
    assert messages == [
        "f/out.1/second.0",
        "f/out.0+f/out.2/first.0",
        "f/out.0+f/out.2/first.1",
    ]


def test_what_depends_on_no_parameter_gets_nothing() -> None:
    out = combine(1, 2)
    assert sweep([(out, st.Feedback(score=1))], Paths()) == []
    assert st.minimal_subgraph(out).is_empty


def test_derivatives_are_measured_only_when_asked() -> None:
    @st.op
    def cube(x: float) -> float:
        return x**3

    x = st.Parameter(2.0, "x")
    with pytest.raises(ConfigError, match="differences=True"):
        cube(x).backward(1.0, st.ScalarPropagator())
    cube(x).backward(2.0, st.ScalarPropagator(differences=True))
    assert x.messages == [pytest.approx(24.0, rel=1e-9)]

    @st.op(vjp=lambda g, z, x: (g * 3 * x**2,))
    def known(x: float) -> float:
        return x**3

    x.zero_feedback()
    known(x).backward(2.0, st.ScalarPropagator())
    assert x.messages == [24.0]


RECORD = json.loads((Path(__file__).parent / "data" / "trace_opt_sections.json").read_text())


@pytest.mark.parametrize("number", range(len(RECORD["cases"])))
def test_sections_are_those_of_trace_opt(number: int) -> None:
    case = RECORD["cases"][number]
    made: list[st.Node] = []
    for kind, given_value in case["program"]:
        if kind == "op":
            made.append(combine(*[made[k] for k in given_value]))
        else:
            made.append(st.Parameter(given_value) if kind == "parameter" else st.node(given_value))
    graph = st.minimal_subgraph(made[-1])
    index = {node: k for k, node in enumerate(made)}
    ours = {
        "variables": sorted(index[node] for node in graph.variables),
        "code": sorted(index[node] for node in graph.code),
        "inputs": sorted(index[node] for node in graph.inputs),
        "others": sorted(index[node] for node in graph.others),
        "outputs": [index[graph.output]] if graph.code else [],
    }
    assert ours == case["sections"]
