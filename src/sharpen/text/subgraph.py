"""The part of a program that links its parameters to an output.

Cheng, Nie and Swaminathan, *Trace is the Next AutoDiff*, NeurIPS 2024 (arXiv 2406.16218).

::

    A = the output and its ancestors          P = the parameters among them
    D = {v in A : v in P, or an input of v in D}
    M = D and the inputs of D                  (the minimal subgraph)

    code      = nodes of M that were made by an operation and whose inputs are all in M
    variables = P
    inputs    = the other nodes of M: roots, and what was made from something outside M
    others    = code without the output

Differs from the paper: lists are in order of creation, which is an order in which the code can run.
Time and memory are linear in the size of A.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sharpen.text.nodes import Node
from sharpen.text.parameter import Parameter
from sharpen.text.sweep import ancestors

__all__ = ["Subgraph", "minimal_subgraph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgraph:
    """A minimal subgraph; every list is in order of creation."""

    output: Node
    """What feedback was given on."""

    code: tuple[Node, ...]
    """What operations within it made."""

    variables: tuple[Parameter, ...]
    """Its parameters."""

    inputs: tuple[Node, ...]
    """Values that come from elsewhere."""

    @property
    def others(self) -> tuple[Node, ...]:
        """What operations made on the way to the output."""
        return tuple(node for node in self.code if node is not self.output)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of it."""
        return tuple(sorted((*self.code, *self.variables, *self.inputs), key=lambda n: n.id))

    @property
    def is_empty(self) -> bool:
        """Whether the output depends on no parameter."""
        return not self.variables


def minimal_subgraph(output: Node, parameters: Iterable[Parameter] | None = None) -> Subgraph:
    """The minimal subgraph of ``output``.

    Args:
        output: what feedback was given on.
        parameters: those to link to it; without, all that may be changed.

    Raises:
        GraphFreedError: the tape that recorded it has ended.
    """
    wanted = None if parameters is None else {parameter.id for parameter in parameters}
    depends: set[int] = set()
    members: dict[int, Node] = {}
    for node in ancestors([output]):
        is_wanted = isinstance(node, Parameter) and (
            node.needs_grad if wanted is None else node.id in wanted
        )
        if is_wanted or any(parent.id in depends for parent in node.inputs):
            depends.add(node.id)
            members[node.id] = node
            members.update((parent.id, parent) for parent in node.inputs)
    code, variables, inputs = [], [], []
    for number in sorted(members):
        node = members[number]
        if isinstance(node, Parameter) and number in depends:
            variables.append(node)
        elif node.inputs and all(parent.id in members for parent in node.inputs):
            code.append(node)
        else:
            inputs.append(node)
    return Subgraph(
        output=output, code=tuple(code), variables=tuple(variables), inputs=tuple(inputs)
    )
