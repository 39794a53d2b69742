"""Programs made of words that improve themselves from feedback.

A program is recorded while it runs (:func:`op`, :class:`Parameter`), feedback of any kind is sent
back through the record (``output.backward(...)``), and an optimizer changes the parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.text.errors import (
        BackwardTwiceError,
        ExecutionError,
        GraphFreedError,
        UndeclaredInputError,
    )
    from sharpen.text.feedback import Feedback
    from sharpen.text.node import Node, no_trace, node
    from sharpen.text.parameter import Parameter
    from sharpen.text.record import Op, bundle, op
    from sharpen.text.scalar import ScalarPropagator
    from sharpen.text.subgraph import Subgraph, minimal_subgraph
    from sharpen.text.sweep import Propagator
    from sharpen.text.tape import Tape

_MODULES = {
    "errors": ["BackwardTwiceError", "ExecutionError", "GraphFreedError", "UndeclaredInputError"],
    "feedback": ["Feedback"],
    "node": ["Node", "no_trace", "node"],
    "parameter": ["Parameter"],
    "record": ["Op", "bundle", "op"],
    "scalar": ["ScalarPropagator"],
    "subgraph": ["Subgraph", "minimal_subgraph"],
    "sweep": ["Propagator"],
    "tape": ["Tape"],
}

__all__ = [
    "BackwardTwiceError",
    "ExecutionError",
    "Feedback",
    "GraphFreedError",
    "Node",
    "Op",
    "Parameter",
    "Propagator",
    "ScalarPropagator",
    "Subgraph",
    "Tape",
    "UndeclaredInputError",
    "bundle",
    "minimal_subgraph",
    "no_trace",
    "node",
    "op",
]

__getattr__ = exports(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)
