"""A call of a language model as an operation of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sharpen.text.asking import as_lm
from sharpen.text.nodes import Node, Operation
from sharpen.text.record import Op

__all__ = ["LLM"]


class LLM:
    """A language model in a program: takes a prompt, gives a node with its reply.

    Args:
        lm: the model, as for :func:`sharpen.text.asking.as_lm`.
        system: what it is told first; a parameter where it is to be optimized.
        parse: makes the value out of the reply.
        name: how listings call it.
        doc: one line on what it does.
        sampling: parameters of the requests, ``temperature`` and others.

    Examples:
        >>> from sharpen.core.lm import Scripted
        >>> answer = LLM(Scripted(["4"]), system="Be brief.")
        >>> answer("2 + 2?").value
        '4'
    """

    def __init__(
        self,
        lm: Any,
        system: Node | str | None = None,
        *,
        parse: Callable[[str], Any] | None = None,
        name: str = "llm",
        doc: str = "a language model's reply to the prompt",
        **sampling: Any,
    ) -> None:
        self.lm = as_lm(lm)
        self.system = Node(system, "system") if isinstance(system, str) else system
        self.parse = parse
        self.sampling = sampling

        def llm(prompt: Any, system: Any = None) -> Any:
            messages = [{"role": "user", "content": str(prompt)}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": str(system)})
            reply = self.lm(messages, **self.sampling)
            return reply if self.parse is None else self.parse(reply)

        async def allm(prompt: Any, system: Any = None) -> Any:
            messages = [{"role": "user", "content": str(prompt)}]
            if system is not None:
                messages.insert(0, {"role": "system", "content": str(system)})
            reply = await self.lm.acall(messages, **self.sampling)
            return reply if self.parse is None else self.parse(reply)

        self._op = Op(llm, Operation(name, doc, kind="llm", function=llm))
        self._async_op = Op(allm, Operation(name, doc, kind="llm", function=llm))

    def __call__(self, prompt: Any) -> Node:
        """The reply to ``prompt``, a node or a text.

        Raises:
            ExecutionError: the model did not reply, or its reply could not be parsed.
        """
        return self._call(self._op, prompt)  # type: ignore[no-any-return]

    async def acall(self, prompt: Any) -> Node:
        """The same, for programs of ``asyncio``."""
        return await self._call(self._async_op, prompt)  # type: ignore[no-any-return]

    def _call(self, op: Op, prompt: Any) -> Any:
        return op(prompt) if self.system is None else op(prompt, system=self.system)
