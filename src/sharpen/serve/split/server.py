"""The server of a worker: the ordinary API and the routes of ``split/routes.py``.

A router needs no server of its own: an ``ApiServer`` that loads a ``RouterLLM`` is one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

from fastapi import FastAPI

from sharpen.core.errors import ConfigError
from sharpen.serve.api.server import ApiServer, ServerConfig
from sharpen.serve.llm import LLM
from sharpen.serve.split.engine import SplitLLM
from sharpen.serve.split.ring import Connector
from sharpen.serve.split.router import RouterLLM
from sharpen.serve.split.routes import Role, WorkerConfig, add_split_routes

__all__ = ["WorkerServer", "make_server"]

_ANY_SIZE = 1 << 50  # of a body: keys and values come as one
_WAIT_S = 120.0  # for workers that load while the router starts


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
        self._rings = add_split_routes(app, self.state, worker)

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """See :meth:`ApiServer.run`."""
        try:
            super().run(on_ready)
        finally:
            self._rings.close()


def make_server(
    role: str,
    config: ServerConfig,
    model: str,
    load: Callable[[type[LLM]], LLM],
    *,
    workers: Sequence[str] = (),
    policy: str = "mixed_pool",
    threshold: int = 512,
    checksum: bool = False,
    connector: str = "auto",
) -> ApiServer:
    """The server of a role.

    Args:
        role: ``prefill``, ``decode``, ``mixed`` or ``router``.
        config: where and how; its first key is shown to workers.
        model: an asset's name, folder or file.
        load: loads the model as the given kind of ``LLM``; not called for a router.
        workers: a router's, by address.
        policy: a router's, of ``serve/simulate/policies.py``.
        threshold: tokens of a prompt from which a worker sends layers as they are computed.
        checksum: add checksums to keys and values.
        connector: how a worker sends them: ``auto``, ``http`` or ``shm``.

    Raises:
        ConfigError: an unknown role, or options that do not go with it.
        BusyError: the port is in use.
    """
    key = config.api_keys[0] if config.api_keys else None
    if role == "router":
        return ApiServer(
            config, lambda: RouterLLM(model, workers, policy=policy, api_key=key, wait_s=_WAIT_S)
        )
    if workers:
        raise ConfigError("--worker goes with --role router alone.")
    worker = WorkerConfig(
        role=cast(Role, role),
        threshold=threshold,
        checksum=checksum,
        connector=cast(Connector, connector),
        api_key=key,
    )
    config = dataclasses.replace(config, max_body_bytes=_ANY_SIZE)

    def load_split() -> SplitLLM:
        made = load(SplitLLM)
        assert isinstance(made, SplitLLM)
        return made

    return WorkerServer(config, load_split, worker)
