"""A server in a thread, over a real socket."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sharpen.serve import LLM
from sharpen.serve.api.server import ApiServer, ServerConfig


@contextmanager
def running(
    folder: Path, *, engine: dict[str, Any] | None = None, **settings: Any
) -> Iterator[ApiServer]:
    """A server of the model in ``folder``; ``engine`` are options of ``LLM``."""
    server = ApiServer(
        ServerConfig(name="tiny", port=0, **settings),
        lambda: LLM(folder, dtype="float32", **(engine or {})),
    )
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()
