"""What optimizers may change: a value with what must hold of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from sharpen.core.errors import ConfigError, SharpenError
from sharpen.core.parameters import Parameter as SpaceParameter
from sharpen.text.coerce import KINDS, Kind, coerce, kind_of
from sharpen.text.feedback import Feedback
from sharpen.text.nodes import Node

__all__ = ["Parameter"]

_HISTORY = 100

Check = Callable[[Any], bool | str | None]


class Parameter(Node):
    """A root of a program that optimizers may change.

    Args:
        value: its first value.
        name: how listings call it, and replies of models name it.
        role: what it is for, in words that an optimizer may read.
        constraint: what must hold of it, in words that an optimizer may read.
        space: a parameter of a search space (``Float``, ``Int``, ``Categorical`` ...) that its
            values must belong to; optimizers that search need it for numbers.
        check: called with a value; False or words of complaint refuse it.
        kind: ``text``, ``code``, ``json``, ``float``, ``int``, ``bool`` or ``choice``; from the
            value without one.
        requires_grad: whether optimizers may change it now.

    Raises:
        ConfigError: the value is refused by its kind, ``space`` or ``check``.
    """

    __slots__ = ("check", "constraint", "history", "kind", "messages", "pending", "space")

    def __init__(
        self,
        value: Any,
        name: str | None = None,
        role: str = "",
        constraint: str | None = None,
        space: SpaceParameter | None = None,
        check: Check | None = None,
        kind: Kind | None = None,
        *,
        requires_grad: bool = True,
    ) -> None:
        if isinstance(value, Node):
            raise ConfigError("a parameter needs a plain value: give node.value.")
        if kind is not None and kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {kind!r} (Parameter).")
        super().__init__(None, name, role, needs_grad=requires_grad)
        self.constraint = constraint
        self.space = space
        self.check = check
        self.kind: Kind = kind or kind_of(value)
        self.history: deque[Any] = deque(maxlen=_HISTORY)
        self.pending: list[tuple[Node, Feedback]] = []
        self.messages: list[Any] = []
        self._value = self.validated(value)

    @property
    def value(self) -> Any:
        """The value now; setting it checks it and keeps the old one in :attr:`history`."""
        return super().value

    @value.setter
    def value(self, value: Any) -> None:
        new = self.validated(value)
        self.history.append(self._value)
        self._value = new

    def validated(self, value: Any) -> Any:
        """``value`` as this parameter would hold it; changes nothing.

        Raises:
            ConfigError: it is refused, with the reason.
        """
        called = f"parameter '{self.name}'" if self.name else "a parameter"
        try:
            value = coerce(value, self.kind)
            if self.space is not None:
                value = self.space.check(value)
        except SharpenError as error:
            raise ConfigError(f"{called} {error}") from None
        if self.check is not None:
            said = self.check(value)
            if said is False or isinstance(said, str):
                rule = said if isinstance(said, str) else self.constraint or "its check"
                raise ConfigError(f"{called} breaks its rule: {rule}. The value was {value!r}.")
        return value

    @property
    def frozen(self) -> bool:
        """Whether optimizers leave it alone."""
        return not self.needs_grad

    def freeze(self, frozen: bool = True) -> None:
        """Let optimizers leave it alone, or change it again; for programs recorded from now on."""
        self.needs_grad = not frozen

    def zero_feedback(self) -> None:
        """Forget the feedback that waits."""
        self.pending.clear()
        self.messages.clear()
