"""What can go wrong in a program of recorded operations.

::

    core.ExecutionError
    └── ExecutionError       an operation raised: ``.node`` can be given feedback
    core.ConfigError
    ├── UndeclaredInputError an operation read a parameter that is not among its inputs
    ├── BackwardTwiceError   feedback was sent back twice through a graph that was not kept
    └── GraphFreedError      the graph was freed when its tape ended
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.errors import ConfigError
from sharpen.core.errors import ExecutionError as CoreExecutionError

if TYPE_CHECKING:
    from sharpen.text.nodes import Node

__all__ = ["BackwardTwiceError", "ExecutionError", "GraphFreedError", "UndeclaredInputError"]


class ExecutionError(CoreExecutionError):
    """An operation of a program raised.

    Args:
        node: what stands for its output; its value is the report of the error, and feedback can be
            sent back from it: ``error.node.backward(error.node.value)``.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(str(node.value))
        self.node = node

    @property
    def exception_node(self) -> Node:
        """The same as ``node``, under the name that Trace gives it."""
        return self.node


class UndeclaredInputError(ConfigError):
    """An operation read a parameter that is not among its inputs."""


class BackwardTwiceError(ConfigError):
    """Feedback was sent back twice from one output without ``retain=True``."""


class GraphFreedError(ConfigError):
    """The tape that recorded a node has ended, and with it the graph."""
