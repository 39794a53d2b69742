"""A tape notes the operations of a stretch of a program and frees their graph when it ends.

Operations are recorded without a tape too: then a graph lives as long as its outputs do.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sharpen.text.nodes import Node

if TYPE_CHECKING:
    from sharpen.text.drawing import Drawing

__all__ = ["Tape", "current_tape"]

_TAPE: ContextVar[Tape | None] = ContextVar("sharpen.text.tape", default=None)


def current_tape() -> Tape | None:
    """The innermost tape of this thread or task."""
    return _TAPE.get()


class Tape:
    """Notes every operation within ``with Tape() as tape:``.

    At its end the graphs are freed, so that outputs that are kept for their values hold no memory
    of the program; a graph whose feedback was sent back stays for the optimizer that steps, and
    all stay where the block ended with an error, which takes feedback too. Tapes nest: an
    operation is noted by the innermost one.

    Args:
        retain: keep all graphs.
    """

    def __init__(self, *, retain: bool = False) -> None:
        self.retain = retain
        self.nodes: list[Node] = []
        self._tokens: list[Token[Tape | None]] = []

    def add(self, node: Node) -> None:
        """Note what an operation gave."""
        self.nodes.append(node)

    def draw(self) -> Drawing:
        """A picture of what was noted so far.

        Raises:
            ConfigError: nothing was.
        """
        from sharpen.text.drawing import Drawing

        used = {parent.id for node in self.nodes for parent in node.inputs}
        return Drawing(*(node for node in self.nodes if node.id not in used))

    def __enter__(self) -> Self:
        self._tokens.append(_TAPE.set(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _TAPE.reset(self._tokens.pop())
        if error is None and not self.retain:
            self.free()

    def free(self) -> None:
        """Free the graphs whose feedback was not sent back."""
        kept: set[int] = set()
        for node in reversed(self.nodes):  # an operation's inputs are older than its output
            if node.was_swept or node.id in kept:
                kept.update(parent.id for parent in node.inputs)
            else:
                node.free()
        self.nodes.clear()
