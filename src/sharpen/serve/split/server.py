"""The server of a worker: the ordinary API and the routes of ``split/routes.py``.

A router needs no server of its own: an ``ApiServer`` that loads a ``RouterLLM`` is one.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from sharpen.serve.api.server import ApiServer, ServerConfig
from sharpen.serve.split.engine import SplitLLM
from sharpen.serve.split.routes import WorkerConfig, add_split_routes

__all__ = ["WorkerServer"]


class WorkerServer(ApiServer):
    """A worker; it answers the ordinary API, too.

    Args:
        config: where and how; ``max_body_bytes`` must hold the keys and values of a prompt.
        load: loads the model.
        worker: what it is for.

    Raises:
        BusyError: the port is in use.
        ConfigError: the address cannot be listened on.
    """

    def __init__(
        self, config: ServerConfig, load: Callable[[], SplitLLM], worker: WorkerConfig
    ) -> None:
        super().__init__(config, load)
        app = self._server.config.app
        assert isinstance(app, FastAPI)
        add_split_routes(app, self.state, worker)
