"""How feedback travels back from an output to the parameters it depends on.

One sweep serves every kind of feedback. It visits the outputs and their ancestors that depend on a
parameter, each once and after all that use it: what arrives at a node is merged, then pushed along
each of its inputs. What a message is, and what merging and pushing mean, is the propagator's.
Nodes that wait for nothing form a round; their messages are independent and may be worked out at
the same time, and results are put in order afterwards, so the outcome does not depend on timing.

Time and memory are linear in the part of the graph that is visited.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from sharpen.text.feedback import Feedback
from sharpen.text.nodes import Node
from sharpen.text.parameter import Parameter

__all__ = ["Propagator", "ancestors", "deliver", "sweep"]

M = TypeVar("M")


class Propagator(ABC, Generic[M]):
    """What feedback is while it travels."""

    concurrency: int = 1
    """Messages that are worked out at once; more than 1 where a message waits for a model."""

    @abstractmethod
    def start(self, output: Node, feedback: Feedback) -> M:
        """The message at the output."""

    @abstractmethod
    def merge(self, node: Node, messages: Sequence[M]) -> M:
        """One message of those that arrived at ``node``; there is at least one."""

    @abstractmethod
    def push(self, node: Node, slot: int, message: M) -> M | None:
        """The message for input ``slot`` of ``node``; None where nothing is to be said."""


def ancestors(outputs: Sequence[Node]) -> list[Node]:
    """The outputs and all they were made from, oldest first."""
    found = {node.id: node for node in outputs}
    waiting = list(found.values())
    while waiting:
        for parent in waiting.pop().inputs:
            if parent.id not in found:
                found[parent.id] = parent
                waiting.append(parent)
    return [found[number] for number in sorted(found)]


def deliver(output: Node, feedback: Feedback, propagator: Propagator[Any] | None) -> None:
    """Bring ``feedback`` on ``output`` to its parameters, propagated or as it is."""
    if propagator is None:
        for node in ancestors([output]):
            if isinstance(node, Parameter) and node.needs_grad:
                node.pending.append((output, feedback))
        return
    for parameter, messages in sweep([(output, feedback)], propagator):
        parameter.messages.extend(messages)


def sweep(
    given: Sequence[tuple[Node, Feedback]], propagator: Propagator[M]
) -> list[tuple[Parameter, list[M]]]:
    """Propagate feedback on outputs.

    Args:
        given: outputs, each with its feedback.
        propagator: how it travels.

    Returns:
        Parameters that got something, in order of creation, with what arrived: from the youngest
        user first, and by the order of its inputs.
    """
    arrived: dict[int, list[M]] = {}
    outputs: dict[int, Node] = {}
    for output, feedback in given:
        if output.needs_grad:
            outputs[output.id] = output
            arrived.setdefault(output.id, []).append(propagator.start(output, feedback))
    nodes = [node for node in ancestors(list(outputs.values())) if node.needs_grad]
    users = dict.fromkeys((node.id for node in nodes), 0)
    for node in nodes:
        for parent in node.inputs:
            if parent.needs_grad:
                users[parent.id] += 1
    parcels: dict[int, list[tuple[int, int, M]]] = {}
    ready = [node for node in reversed(nodes) if users[node.id] == 0]
    with _Workers(propagator.concurrency) as work:
        while ready:
            inner = [node for node in ready if node.inputs]
            for node in inner:
                _collect(node, parcels, arrived)
            sent = [node for node in inner if arrived.get(node.id)]
            merged = work([_merge(propagator, node, arrived.pop(node.id)) for node in sent])
            edges = [
                (node, slot, parent, message)
                for node, message in zip(sent, merged, strict=True)
                for slot, parent in enumerate(node.inputs)
                if parent.needs_grad
            ]
            pushed = work([_push(propagator, node, slot, m) for node, slot, _, m in edges])
            for (node, slot, parent, _), message in zip(edges, pushed, strict=True):
                if message is not None:
                    parcels.setdefault(parent.id, []).append((-node.id, slot, message))
            following: dict[int, Node] = {}
            for node in inner:
                for parent in node.inputs:
                    if parent.needs_grad:
                        users[parent.id] -= 1
                        if users[parent.id] == 0:
                            following[parent.id] = parent
            ready = [following[number] for number in sorted(following, reverse=True)]
    received = []
    for node in nodes:
        if isinstance(node, Parameter):
            _collect(node, parcels, arrived)
            if arrived.get(node.id):
                received.append((node, arrived[node.id]))
    return received


def _collect(
    node: Node, parcels: dict[int, list[tuple[int, int, M]]], arrived: dict[int, list[M]]
) -> None:
    waiting = parcels.pop(node.id, None)
    if waiting:
        waiting.sort(key=lambda parcel: parcel[:2])
        arrived.setdefault(node.id, []).extend(message for _, _, message in waiting)


def _merge(propagator: Propagator[M], node: Node, messages: list[M]) -> Callable[[], M]:
    return lambda: propagator.merge(node, messages)


def _push(propagator: Propagator[M], node: Node, slot: int, message: M) -> Callable[[], M | None]:
    return lambda: propagator.push(node, slot, message)


class _Workers:
    """Runs tasks of a round in order, or at once on threads with this thread's context."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        if self._pool is None or len(tasks) < 2:
            return [task() for task in tasks]
        return list(self._pool.map(lambda task: copy_context().run(task), tasks))
