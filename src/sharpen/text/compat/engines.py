"""Engines as other packages give them: by the name of a model, or by a class with ``generate``."""

from __future__ import annotations

from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.client import LM
from sharpen.core.lm.messages import ChatRequest, ChatResponse, ThreadedEngine, text_of
from sharpen.text.asking import as_lm

__all__ = ["EngineLM", "as_engine", "named_engine"]

_PREFIXES = ("experimental:", "openai/", "litellm:")


class EngineLM(ThreadedEngine):
    """Base of a user's own engine: a subclass has ``generate(prompt, system_prompt=None)``.

    Attributes:
        model_string: the model's name.
    """

    model_string: str = "custom"
    capabilities: set[str] = set()  # noqa: RUF012 (the protocol of engines has a plain attribute)

    def generate(self, prompt: str, system_prompt: str | None = None, **sampling: Any) -> str:
        """The reply to a prompt."""
        raise NotImplementedError(f"{type(self).__name__} needs generate(prompt, system_prompt).")

    @property
    def model(self) -> str:
        """The model's name."""
        return self.model_string

    @property
    def scope(self) -> str:
        """Replies of one object are cached apart from those of another."""
        return f"{type(self).__qualname__} {self.model_string} {id(self)}"

    def complete(self, request: ChatRequest) -> ChatResponse:
        """The reply of :meth:`generate`."""
        system = [text_of(m) for m in request.messages if m["role"] == "system"]
        rest = [text_of(m) for m in request.messages if m["role"] != "system"]
        text = self.generate("\n\n".join(rest), "\n\n".join(system) or None)
        if not isinstance(text, str):
            raise ConfigError(f"{type(self).__name__}.generate gave {text!r:.80}, not a text.")
        return ChatResponse([text], None, ["stop"], self.model_string)


def named_engine(name: str, **options: Any) -> LM:
    """A model by an address of :class:`~sharpen.core.lm.client.LM`, or by its bare name.

    A bare name such as ``gpt-4o`` is that of a model of the server that ``SHARPEN_LLM_BASE_URL``
    or ``OPENAI_BASE_URL`` names.

    Args:
        name: an address or a name.
        options: sampling parameters, ``cache``, ``budget`` and what else ``LM`` takes.

    Raises:
        ConfigError: no server is named, or the address is none.
    """
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if ":" in name:
        return LM(name, **options)
    return LM(None, options={"model": name}, **options)


def as_engine(engine: Any) -> LM:
    """A client of an engine, an address, a model's name, or a function of a prompt."""
    return named_engine(engine) if isinstance(engine, str) else as_lm(engine)
