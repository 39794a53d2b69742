"""The thread that runs an engine for a server: it sleeps while there is nothing to do.

Event loops hear of a round once, when it is over: waking a loop costs more than what it is told,
and a loop that runs beside the round keeps the engine from the interpreter.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sharpen.serve.embedding import Embedding, Pooling
from sharpen.serve.engine import Engine, RoundError
from sharpen.serve.request import Continuation, Piece
from sharpen.serve.sampling import SamplingParams

__all__ = ["Worker"]

_Calls = list[tuple[Callable[[Any], None], Any]]

_log = logging.getLogger(__name__)


class Worker:
    """Runs an engine in a thread of its own, until :meth:`close`.

    A round that fails ends its requests with ``error``; the worker goes on. When the engine itself
    fails, all requests end so, and the worker is dead.

    Attributes:
        failure: what it died of; None while it lives.

    Args:
        engine: driven by this worker alone.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._wake = threading.Event()
        self._closing = False
        self._posts: dict[asyncio.AbstractEventLoop, _Calls] = {}
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="sharpen-engine", daemon=True)
        self._thread.start()

    def submit(
        self, prompt_ids: Sequence[int], params: SamplingParams, on_piece: Callable[[Piece], None]
    ) -> list[Continuation]:
        """Queue a request; ``on_piece`` is called in the worker's thread.

        Raises:
            DataError: the prompt is empty, holds a wrong id, or does not fit the context.
            OverloadedError: too many requests wait.
        """
        sequences = self.engine.submit(prompt_ids, params, on_piece)
        self._woken()
        return sequences

    def embed(
        self,
        prompt_ids: Sequence[int],
        on_done: Callable[[Embedding], None],
        *,
        pooling: Pooling,
        adapter: str | None = None,
        priority: float = 0.0,
    ) -> Embedding:
        """Queue a text for its vector; as :meth:`Engine.embed`."""
        made = self.engine.embed(
            prompt_ids, on_done, pooling=pooling, adapter=adapter, priority=priority
        )
        self._woken()
        return made

    def post(
        self, loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], argument: Any
    ) -> None:
        """Have ``loop`` call something: at the end of the round, with all else that it tells.

        Args:
            loop: of another thread; a closed one is left alone.
            call: with ``argument``.
            argument: whatever.
        """
        if threading.current_thread() is self._thread:
            self._posts.setdefault(loop, []).append((call, argument))
        else:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(call, argument)

    def cancel(self, sequences: Sequence[Continuation | Embedding]) -> None:
        """Stop sequences; they leave at the next round."""
        self.engine.cancel(sequences)
        self._wake.set()

    def close(self) -> None:
        """End the thread after its present round."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _woken(self) -> None:
        self._wake.set()
        if self.failure is not None:  # it may have died since the caller looked
            self.engine.fail(self.failure)

    def _loop(self) -> None:
        try:
            while not self._closing:
                self._wake.clear()
                try:
                    busy = self.engine.step()
                except RoundError:
                    _log.exception("a round of the engine failed; its requests ended with an error")
                    continue
                finally:
                    self._deliver()
                if not busy:
                    self._wake.wait()
        except BaseException as error:
            self.failure = error
            _log.critical("the engine died; all requests ended with an error", exc_info=True)
            self.engine.fail(error)
            self._deliver()

    def _deliver(self) -> None:
        """Tell every loop what the round has for it."""
        posts, self._posts = self._posts, {}
        for loop, calls in posts.items():
            with suppress(RuntimeError):  # the loop is closed when a server goes down
                loop.call_soon_threadsafe(_call_all, calls)


def _call_all(calls: _Calls) -> None:
    for call, argument in calls:
        call(argument)
