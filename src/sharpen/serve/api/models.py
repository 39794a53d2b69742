"""Routes of the model and its adapters.

::

    GET  /v1/models             GET  /v1/models/{id}
    POST /v1/load_lora_adapter  POST /v1/unload_lora_adapter
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI

from sharpen.serve.adapters import Adapters, NamedAdapter
from sharpen.serve.api.errors import ApiError
from sharpen.serve.api.schemas import LoadAdapterRequest, UnloadAdapterRequest
from sharpen.serve.api.state import ServerState, find_model

__all__ = ["add_model_routes"]


def add_model_routes(app: FastAPI, state: ServerState) -> None:
    """Add them to ``app``."""

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        found = list(state.llm.engine.adapters) if state.llm is not None else []
        return {"object": "list", "data": [_model(state), *(_model(state, one) for one in found)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model(state, find_model(state, name))

    @app.post("/v1/load_lora_adapter")
    async def load_adapter(body: LoadAdapterRequest) -> dict[str, Any]:
        adapters = _changeable(state)
        made = await asyncio.to_thread(adapters.load, body.lora_name, body.lora_path)
        return _model(state, made)

    @app.post("/v1/unload_lora_adapter")
    async def unload_adapter(body: UnloadAdapterRequest) -> dict[str, Any]:
        _changeable(state).unload(body.lora_name)
        return {"id": body.lora_name, "object": "model", "deleted": True}


def _model(state: ServerState, adapter: NamedAdapter | None = None) -> dict[str, Any]:
    """The model, or an adapter of it, as clients list it."""
    model = {"id": state.name, "object": "model", "created": state.created, "owned_by": "sharpen"}
    if adapter is None:
        return model
    own = {"id": adapter.name, "created": int(adapter.loaded), "parent": state.name}
    return {**model, **own, "root": adapter.folder}


def _changeable(state: ServerState) -> Adapters:
    """The adapters, where clients may change them.

    Raises:
        ApiError: status 403, they may not.
    """
    llm, _ = state.ready()
    if not state.allow_runtime_lora:
        raise ApiError(
            403, "adapters cannot be changed here. Start the server with --allow-runtime-lora."
        )
    return llm.engine.adapters
