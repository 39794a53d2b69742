"""Values that remember where they come from.

A program is recorded while it runs: each operation gives a :class:`Node` that holds its value and
the call that made it. There is no registry: a graph is held by its outputs and freed with them, so
a loop that records a graph each turn does not grow. Ids count upwards over the whole process, and
an operation can only use what is there already, so the order of ids is a topological order.

The idea of recording a program for feedback of any kind is that of Cheng, Nie and Swaminathan,
*Trace is the Next AutoDiff*, NeurIPS 2024 (arXiv 2406.16218).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from sharpen.core.errors import ConfigError
from sharpen.text.errors import BackwardTwiceError, GraphFreedError
from sharpen.text.feedback import as_feedback
from sharpen.text.operators import Operators

if TYPE_CHECKING:
    from sharpen.text.sweep import Propagator

__all__ = ["Call", "Node", "Operation", "is_recording", "no_trace", "node"]

_IDS = itertools.count()
READS: ContextVar[list[Node] | None] = ContextVar("sharpen.text.reads", default=None)
RECORDING: ContextVar[bool] = ContextVar("sharpen.text.recording", default=True)


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """What made a value: its name, what it does, and how feedback passes through it."""

    name: str
    """Name of the function, as it stands in a listing of the program."""

    doc: str
    """One line on what it does."""

    kind: str = "function"
    """``function``, ``llm``, ``sum`` (feedback passes unchanged), ``method`` or ``code``."""

    function: Callable[..., Any] | None = None
    """What was run, on plain values; None where it cannot be run again."""

    vjp: Callable[..., Any] | None = None
    """``vjp(cotangent, output, *inputs)`` gives the cotangent of each input, or None for it."""

    backward: Callable[..., Any] | None = None
    """``backward(feedback_text, output, *inputs)`` gives the words for each input, or None."""

    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further plain facts, such as the system prompt's role."""


class Call:
    """One run of an operation: its inputs in order, each with the name of its argument."""

    __slots__ = ("inputs", "names", "operation")

    def __init__(
        self, operation: Operation, inputs: tuple[Node, ...], names: tuple[str, ...]
    ) -> None:
        self.operation = operation
        self.inputs = inputs
        self.names = names


class Node(Operators):
    """A value and the call that made it.

    Arithmetic, comparisons (``<``, ``<=``, ``>``, ``>=``, :meth:`eq`, :meth:`ne`), indexing and
    methods of the value (:meth:`call`) are recorded. ``==`` compares identity, so nodes can be kept
    in sets, and a node has no truth: a branch that depends on ``node.value`` leaves no record.

    Args:
        value: anything; it is not copied and must not be changed afterwards.
        name: how listings call it; without one it is named after what made it.
        role: what it is for, in words that an optimizer may read.
        meta: further plain data.

    Attributes:
        id: order of creation.
        needs_grad: whether a parameter that is being optimized is among its ancestors.
    """

    __slots__ = (
        *("__weakref__", "_swept", "_value", "call_record"),
        *("id", "meta", "name", "needs_grad", "role"),
    )

    def __init__(
        self,
        value: Any,
        name: str | None = None,
        role: str = "",
        meta: Mapping[str, Any] | None = None,
        *,
        call: Call | None = None,
        needs_grad: bool = False,
    ) -> None:
        self.id = next(_IDS)
        self._value = value
        self.name = name
        self.role = role
        self.meta = meta
        self.call_record = call
        self.needs_grad = needs_grad
        self._swept: str | None = None

    @property
    def value(self) -> Any:
        """The value; reading it inside an operation is noted (see :func:`sharpen.text.op`)."""
        reads = READS.get()
        if reads is not None:
            reads.append(self)
        return self._value

    @property
    def data(self) -> Any:
        """The same as ``value``, under the name that Trace gives it."""
        return self.value

    @property
    def inputs(self) -> tuple[Node, ...]:
        """What it was made from, in order; one input may stand there twice.

        Raises:
            GraphFreedError: the tape that recorded it has ended.
        """
        if self._swept == "freed":
            raise GraphFreedError(
                f"the graph behind {self!r} was freed when its tape ended. Send feedback back"
                " inside `with Tape():`, or keep the graph: Tape(retain=True)."
            )
        return () if self.call_record is None else self.call_record.inputs

    @property
    def operation(self) -> Operation | None:
        """What made it; None for a root."""
        return None if self.call_record is None else self.call_record.operation

    @property
    def is_root(self) -> bool:
        """Whether no recorded operation made it."""
        return self.call_record is None

    def backward(
        self,
        feedback: Any = None,
        propagator: Propagator[Any] | None = None,
        *,
        retain: bool = False,
    ) -> None:
        """Send feedback on this output back to the parameters it depends on.

        Without a propagator the pair of output and feedback waits at each parameter, and the
        optimizer that steps propagates it in its own way; with one it is propagated at once.

        Args:
            feedback: words, a number, or a :class:`~sharpen.text.Feedback`; None where the output
                is itself a judgement.
            propagator: how it travels (see :mod:`sharpen.text.sweep`).
            retain: let feedback be sent back from this output again.

        Raises:
            BackwardTwiceError: it was sent back before, without ``retain``.
            GraphFreedError: the tape that recorded it has ended.
        """
        from sharpen.text.sweep import deliver

        given = as_feedback(feedback)
        if self._swept == "done":
            raise BackwardTwiceError(
                f"feedback was already sent back from {self!r}. Run the program again, or call"
                " backward(..., retain=True) the first time."
            )
        deliver(self, given, propagator)
        self._swept = "retained" if retain else "done"

    @property
    def was_swept(self) -> bool:
        """Whether feedback was sent back from it."""
        return self._swept in ("done", "retained")

    def detach(self) -> Node:
        """The same value as a root of its own."""
        return Node(self._value, self.name, self.role, self.meta)

    def free(self) -> None:
        """Forget the call that made it; what it was made from may then be collected."""
        if self.call_record is not None:
            self.call_record = None
            self._swept = "freed"

    def __repr__(self) -> str:
        shown = repr(self._value)
        if len(shown) > 60:
            shown = f"{shown[:40]}...{shown[-16:]}"
        made = f", made by {self.operation.name}" if self.operation else ""
        return f"{type(self).__name__}({self.name or '#' + str(self.id)}, {shown}{made})"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a node has no truth, since a branch on it would leave no record."
            " Use node.value for the branch, or do the choice inside an operation."
        )

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Node]:
        value = self.value
        if isinstance(value, Mapping):
            return (self[key] for key in value)
        return (self[i] for i in range(len(value)))

    def __getstate__(self) -> NoReturn:
        raise TypeError("a node is not pickled, since its graph would be too: pass node.value.")


@contextmanager
def no_trace() -> Iterator[None]:
    """Within it operations run and give nodes, but record nothing."""
    token = RECORDING.set(False)
    try:
        yield
    finally:
        RECORDING.reset(token)


def is_recording() -> bool:
    """Whether operations are recorded here."""
    return RECORDING.get()


@contextmanager
def reading() -> Iterator[list[Node]]:
    """Within it the nodes whose value is read are collected, this thread's or task's alone."""
    reads: list[Node] = []
    token = READS.set(reads)
    try:
        yield reads
    finally:
        READS.reset(token)


def node(
    value: Any,
    name: str | None = None,
    *,
    trainable: bool = False,
    constraint: str | None = None,
    role: str = "",
) -> Node:
    """A root of a graph; a parameter where ``trainable``.

    Args:
        value: anything; a node is given back as it is.
        name: how listings call it.
        trainable: whether optimizers may change it.
        constraint: what must hold of it, in words, where trainable.
        role: what it is for.

    Raises:
        ConfigError: a constraint on what is not trainable, or a node made trainable.
    """
    if trainable:
        from sharpen.text.parameter import Parameter

        if isinstance(value, Node):
            raise ConfigError(
                "a node cannot become trainable: give its value, node(x.value, trainable=True)."
            )
        return Parameter(value, name, role=role, constraint=constraint)
    if constraint is not None:
        raise ConfigError("a constraint needs trainable=True: only what is optimized can keep it.")
    return value if isinstance(value, Node) else Node(value, name, role)
