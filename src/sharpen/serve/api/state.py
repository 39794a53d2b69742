"""What the routes share: the model once it is loaded, its thread, names, and measurements."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from fastapi import Request

from sharpen.core.errors import ConfigError
from sharpen.serve.adapters import NamedAdapter
from sharpen.serve.api.errors import ApiError
from sharpen.serve.api.metrics import ServerMetrics
from sharpen.serve.embedding import Embedding
from sharpen.serve.llm import LLM
from sharpen.serve.monitor import Monitor
from sharpen.serve.request import Continuation
from sharpen.serve.worker import Worker

__all__ = ["ServerState", "find_model", "gone"]

_POLL_S = 0.1


@dataclass(slots=True, kw_only=True)
class ServerState:
    """What the routes share."""

    name: str
    """The model's name, as clients must give it."""

    api_keys: tuple[str, ...] = ()
    """Accepted keys; none means that no key is asked for."""

    ui: bool = False
    """Whether there is a chat page at ``/``."""

    max_body_bytes: int = 8 << 20
    """Largest request body."""

    llm: LLM | None = None
    """The model; None while it loads."""

    worker: Worker | None = None
    """Its engine's thread."""

    created: int = field(default_factory=lambda: int(time.time()))
    """When the server started, in seconds since 1970."""

    tool_parser: str | None = None
    """How the model writes calls, a name of ``tools.FORMATS``; None for what its template shows."""

    allow_runtime_lora: bool = False
    """Whether adapters may be loaded and unloaded by request."""

    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    """What it counts."""

    monitor: Monitor | None = None
    """What compares live prompts with those expected; None does not."""

    def attach(self, llm: LLM, monitor: Monitor | None = None) -> None:
        """Begin to serve ``llm``, watched by ``monitor``."""
        self.monitor = monitor
        llm.engine.on_finish = self._finished
        llm.engine.on_step = self.metrics.stepped
        if llm.engine.adapters.find(self.name) is not None:
            raise ConfigError(f"an adapter has the model's name, {self.name!r}. Choose another.")
        llm.engine.adapters.taken = (self.name,)
        self.worker = Worker(llm.engine)
        self.llm = llm

    def _finished(self, sequence: Continuation | Embedding) -> None:
        """Count what ended and, once a prompt, watch it; runs in the engine's thread."""
        self.metrics.finished(sequence)
        done = sequence.finish_reason in ("stop", "length") and isinstance(sequence, Continuation)
        if self.monitor is not None and done and sequence.index == 0:
            self.monitor.observe(sequence.prompt_ids)

    def ready(self) -> tuple[LLM, Worker]:
        """The model and its worker.

        Raises:
            ApiError: status 503 while the model loads, 500 when the engine has died.
        """
        if self.llm is None or self.worker is None:
            raise ApiError(503, f"the model {self.name!r} is loading; try again soon.")
        if self.worker.failure is not None:
            kind = type(self.worker.failure).__name__
            raise ApiError(500, f"the engine died ({kind}); its log says why. Start it again.")
        return self.llm, self.worker


def find_model(state: ServerState, name: str) -> NamedAdapter | None:
    """The adapter that a request's ``model`` names; None for the model itself.

    Raises:
        ApiError: status 404, nothing has this name.
    """
    if name == state.name:
        return None
    found = state.llm.engine.adapters.find(name) if state.llm is not None else None
    if found is None:
        others = [one.name for one in state.llm.engine.adapters] if state.llm is not None else []
        raise ApiError(
            404,
            f"the model {name!r} does not exist; this server has "
            f"{', '.join(repr(one) for one in (state.name, *others))}.",
            param="model",
            code="model_not_found",
        )
    return found


async def gone(request: Request) -> None:
    """Return once the client of a request has gone away."""
    while not await request.is_disconnected():
        await asyncio.sleep(_POLL_S)
