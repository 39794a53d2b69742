"""A recorded program as text: a line of code for each operation, and the values by name.

Names of parameters are the user's; what an operation made is ``<operation>_<k>``, numbered within
the listing; what comes from elsewhere is named after the argument it is given as. Two runs of one
program give the same text, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.text.nodes import Node
from sharpen.text.parameter import Parameter
from sharpen.text.subgraph import Subgraph

__all__ = ["Listing", "elided", "list_program", "name_nodes", "name_parameters", "shown", "typed"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NOT_IN_NAMES = re.compile(r"\W+")


def shown(value: Any) -> str:
    """A value as text; the same for equal values in every process."""
    if isinstance(value, str):
        return value
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(shown, value))) + "}" if value else "set()"
    return _ADDRESS.sub("", repr(value))


def elided(text: str, limit: int) -> str:
    """The beginning and the end of a text that is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = (limit + 1) // 2
    tail = limit - head
    left_out = len(text) - limit
    end = text[-tail:] if tail else ""
    return f"{text[:head]} [... {left_out} characters left out ...] {end}"


def typed(name: str, value: Any, kind: str | None = None, limit: int | None = None) -> str:
    """``(type) name = value``; the source of code follows on its own lines."""
    if kind == "code":
        return f"(code) {name}:\n{value}"
    text = shown(value)
    return f"({type(value).__name__}) {name} = {text if limit is None else elided(text, limit)}"


def name_parameters(parameters: Sequence[Parameter]) -> dict[int, str]:
    """By id, a name for each: its own, or ``parameter_<k>``; repeated names get a number."""
    names = _Names()
    return {p.id: names.free(p.name or f"parameter_{k}") for k, p in enumerate(parameters)}


def name_nodes(
    nodes: Sequence[Node],
    names: Mapping[int, str] | None = None,
    code: Iterable[Node] | None = None,
) -> dict[int, str]:
    """By id, a name for each node of a program.

    Args:
        nodes: in order of creation.
        names: those that are given already; without, those of parameters.
        code: the nodes that stand as calls, whose arguments name roots; without, all with a call.
    """
    if names is None:
        names = name_parameters([node for node in nodes if isinstance(node, Parameter)])
    if code is None:
        code = [node for node in nodes if node.call_record is not None]
    called = dict(names)
    free, arguments = _Names(called.values()), _argument_names(code)
    for node in nodes:
        if node.id in called:
            continue
        if node.name is None and node.operation is not None:
            called[node.id] = free.numbered(_plain(node.operation.name))
        else:
            called[node.id] = free.free(node.name or arguments.get(node.id, "input"))
    return called


class _Names:
    """Names that are given once, in time that does not grow with how many there are."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def free(self, name: str) -> str:
        """``name``, or with the first number from 1 that is free."""
        return self._take(name) if name not in self._taken else self.numbered(name, 1)

    def numbered(self, name: str, first: int = 0) -> str:
        """``name`` with the first number that is free."""
        k = self._next.get(name, first)
        while f"{name}_{k}" in self._taken:
            k += 1
        self._next[name] = k + 1
        return self._take(f"{name}_{k}")

    def _take(self, name: str) -> str:
        self._taken.add(name)
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A program's text, in parts; each a list of names with values, in order of creation."""

    code: tuple[str, ...]
    """``name = operation(argument=name, ...)``, in an order in which it can run."""

    documentation: tuple[str, ...]
    """One line for each operation that is used."""

    variables: tuple[tuple[str, Parameter], ...]
    inputs: tuple[tuple[str, Any], ...]
    others: tuple[tuple[str, Any], ...]
    outputs: tuple[tuple[str, Any], ...]


def list_program(graph: Subgraph, names: Mapping[int, str] | None = None) -> Listing:
    """The text of a minimal subgraph.

    Args:
        graph: what to list.
        names: of parameters, by id; without, as :func:`name_parameters` gives them.
    """
    called = name_nodes(
        graph.nodes, names if names is not None else name_parameters(graph.variables), graph.code
    )
    documentation = {
        node.operation.name: f"{node.operation.name}: {node.operation.doc}"
        for node in graph.code
        if node.operation is not None
    }
    return Listing(
        code=tuple(_line(node, called) for node in graph.code),
        documentation=tuple(documentation.values()),
        variables=tuple((called[p.id], p) for p in graph.variables),
        inputs=_values(graph.inputs, called),
        others=_values(graph.others, called),
        outputs=_values([graph.output] if graph.output in graph.code else [], called),
    )


def _values(nodes: Iterable[Node], names: Mapping[int, str]) -> tuple[tuple[str, Any], ...]:
    return tuple((names[node.id], node._value) for node in nodes)


def _plain(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name).strip("_") or "value"


def _argument_names(code: Iterable[Node]) -> dict[int, str]:
    """By id of a node, the name of the argument it is first given as."""
    found: dict[int, str] = {}
    for node in code:
        assert node.call_record is not None
        for parent, name in zip(node.call_record.inputs, node.call_record.names, strict=True):
            found.setdefault(parent.id, _plain(name))
    return found


def _line(node: Node, names: Mapping[int, str]) -> str:
    record = node.call_record
    assert record is not None
    given = ", ".join(
        f"{argument}={names[parent.id]}"
        for argument, parent in zip(record.names, record.inputs, strict=True)
    )
    return f"{names[node.id]} = {record.operation.name}({given})"
