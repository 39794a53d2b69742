"""Trace's names: ``from sharpen.text.compat import trace``.

``node``, ``bundle``, ``model``, ``Module``, ``GRAPH``, ``stop_tracing``, ``ExecutionError``, and
the optimizers ``OptoPrime``, ``OPRO`` and ``TextGrad`` with the arguments that trace-opt gives
them. Nodes, recording and minimal subgraphs are those of :mod:`sharpen.text`.

Differs from trace-opt: nothing is registered, so ``GRAPH.clear()`` has nothing to do, and a
parameter keeps the name it was given (there a number is added); a value of the wrong type is
refused instead of forced (there ``bool("False")`` is True), and the report that ``step`` returns
says so; a value is set by ``node.value = ...``, not by ``node._data``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.client import LM
from sharpen.text.compat.engines import as_engine
from sharpen.text.errors import ExecutionError
from sharpen.text.module import Module
from sharpen.text.nodes import Node, no_trace
from sharpen.text.nodes import node as _node
from sharpen.text.optimizers.opro import OPRO as _OPRO
from sharpen.text.optimizers.optoprime import OBJECTIVE
from sharpen.text.optimizers.optoprime import OptoPrime as _OptoPrime
from sharpen.text.optimizers.textgrad import TGD
from sharpen.text.parameter import Parameter
from sharpen.text.record import Op, op

__all__ = [
    "GRAPH",
    "OPRO",
    "ExecutionError",
    "Module",
    "Node",
    "OptoPrime",
    "TextGrad",
    "bundle",
    "model",
    "node",
    "stop_tracing",
]

_log = logging.getLogger(__name__)
_DESCRIBED = re.compile(r"\s*(?:\[(?P<name>[^\]]+)\])?\s*(?P<doc>.*)", re.DOTALL)
stop_tracing = no_trace


def node(
    data: Any,
    name: str | None = None,
    trainable: bool = False,
    description: str | None = None,
    constraint: str | None = None,
) -> Node:
    """A root of a program; a parameter where ``trainable``.

    Args:
        data: the value; of a node that becomes trainable, its value.
        name: how listings call it.
        trainable: whether optimizers may change it.
        description: what it is for.
        constraint: what must hold of it, where trainable.
    """
    role = description or ""
    if not trainable:
        return _node(data, name, role=role)
    if isinstance(data, Node):
        name, data = name or data.name, data.value
    return _node(data, name, trainable=True, constraint=constraint, role=role)


def bundle(
    description: str | None = None,
    trainable: bool = False,
    catch_execution_error: bool = True,
    allow_external_dependencies: bool = False,
) -> Callable[[Callable[..., Any]], Op]:
    """Make calls of a function operations of the program.

    Args:
        description: ``[name] what it does``; the function's own without it.
        trainable: make its source a parameter.
        catch_execution_error: make an exception a node that takes feedback.
        allow_external_dependencies: make parameters that it reads from elsewhere its inputs.
    """
    if callable(description):
        raise ConfigError("bundle is called: @bundle(), not @bundle.")
    said = _DESCRIBED.fullmatch(description or "")
    assert said is not None
    return op(
        name=said["name"],
        doc=" ".join(said["doc"].split()) or None,
        trainable=trainable,
        catch=catch_execution_error,
        allow_external=allow_external_dependencies,
    )


def model(cls: type) -> type:
    """A class whose objects find their parameters; a decorator."""
    return type(cls.__name__, (cls, Module), {"__doc__": cls.__doc__, "__module__": cls.__module__})


class _Graph:
    """Stands where trace-opt keeps every node for ever."""

    def clear(self) -> None:
        """Do nothing: a program lives as long as its outputs, and no list of nodes is kept."""
        _log.info("GRAPH.clear() has nothing to do: no list of nodes is kept.")


GRAPH = _Graph()


def _lm(llm: Any) -> LM:
    return LM() if llm is None else as_engine(llm)


class OptoPrime(_OptoPrime):
    """OptoPrime with trace-opt's arguments.

    Args:
        parameters: what to change.
        llm: a model, an address, or a function of a prompt; that of the environment without one.
        objective: the instruction.
        memory_size: how many earlier pairs of values and feedback are shown.
        max_tokens: of a reply.
        options: those of :class:`sharpen.text.OptoPrime`.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        llm: Any = None,
        *,
        objective: str | None = None,
        memory_size: int = 0,
        max_tokens: int = 4096,
        **options: Any,
    ) -> None:
        told = {"objective": objective or OBJECTIVE, "max_tokens": max_tokens, **options}
        super().__init__(parameters, _lm(llm), memory=memory_size, **told)


class OPRO(_OPRO):
    """OPRO with trace-opt's arguments; see :class:`OptoPrime`."""

    def __init__(self, parameters: Sequence[Parameter], llm: Any = None, **options: Any) -> None:
        super().__init__(parameters, _lm(llm), **options)


class TextGrad(TGD):
    """TextGrad with trace-opt's arguments; see :class:`OptoPrime`."""

    def __init__(self, parameters: Sequence[Parameter], llm: Any = None, **options: Any) -> None:
        super().__init__(parameters, _lm(llm), **options)
