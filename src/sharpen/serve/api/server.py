"""A server from the free port to the last request: bind, load, warm up, serve, drain."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

import uvicorn

from sharpen.core.errors import BusyError, ConfigError
from sharpen.serve.admission import QueueLimits
from sharpen.serve.api.app import create_app
from sharpen.serve.api.metrics import ServerMetrics
from sharpen.serve.api.state import ServerState
from sharpen.serve.llm import LLM
from sharpen.serve.monitor import Monitor, MonitorConfig
from sharpen.serve.reference import Reference, prompt_nats
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.tools import FORMATS

__all__ = ["ApiServer", "ServerConfig"]

_log = logging.getLogger(__name__)
_KEEP_ALIVE_S = 75  # longer than clients keep a connection, or they would ask on one just closed


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """Where and how to serve."""

    name: str
    """The model's name, as clients must give it."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = 8000
    """Port; 0 takes a free one."""

    api_keys: tuple[str, ...] = ()
    """Accepted keys; none means that no key is asked for."""

    limits: QueueLimits = field(default_factory=lambda: QueueLimits(requests=256))
    """What may wait for its turn; more is refused with status 429."""

    max_body_bytes: int = 8 << 20
    """Largest request body."""

    drain_s: float = 10.0
    """Seconds that requests under way may take after a stop signal."""

    metrics_alias: tuple[str, ...] = ()
    """Prefixes under which metrics are given, too, such as ``vllm``."""

    tool_parser: str | None = None
    """How the model writes calls: hermes or llama3_json; None for what its template shows."""

    ui: bool = False
    """Whether a chat page is served at ``/``."""

    allow_runtime_lora: bool = False
    """Whether adapters may be loaded and unloaded by request."""

    reference: Reference | None = None
    """What live prompts are compared with; None does not watch them."""

    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """Windows and limits of that comparison."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"port={self.port} must be from 0 to 65535.")
        if self.tool_parser is not None and self.tool_parser not in FORMATS:
            raise ConfigError(f"tool_parser={self.tool_parser!r} must be {' or '.join(FORMATS)}.")
        for alias in self.metrics_alias:
            if not re.fullmatch(r"[a-zA-Z_]\w*", alias, re.ASCII):
                raise ConfigError(f"metrics_alias={alias!r} must be a word, such as vllm.")
        if any(not key.strip() for key in self.api_keys):
            raise ConfigError("an API key is empty.")


class _Uvicorn(uvicorn.Server):
    """Takes a stop signal as the wish to drain and return, not to die of it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while serving, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class ApiServer:
    """One model behind HTTP.

    Args:
        config: where and how.
        load: loads the model; called once, in a thread, while ``/health`` answers 503.

    Attributes:
        url: base address, such as ``http://127.0.0.1:8000``.

    Raises:
        BusyError: the port is in use.
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, config: ServerConfig, load: Callable[[], LLM]) -> None:
        self.config = config
        self._load = load
        self._socket = _listen(config.host, config.port)
        host = f"[{config.host}]" if ":" in config.host else config.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self.state = ServerState(
            name=config.name,
            api_keys=config.api_keys,
            max_body_bytes=config.max_body_bytes,
            ui=config.ui,
            tool_parser=config.tool_parser,
            allow_runtime_lora=config.allow_runtime_lora,
            metrics=ServerMetrics(config.metrics_alias),
        )
        self._failure: BaseException | None = None
        self._server = _Uvicorn(
            uvicorn.Config(
                create_app(self.state),
                log_config=None,
                access_log=False,
                lifespan="off",
                loop="auto",
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(int(config.drain_s), 1),
            )
        )

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serve until :meth:`stop`, SIGINT or SIGTERM; requests under way may finish.

        Args:
            on_ready: called once, from another thread, when the model answers.

        Raises:
            SharpenError: the model cannot be loaded.
        """
        loader = threading.Thread(target=self._prepare, args=(on_ready,), daemon=True)
        loader.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            if self.state.worker is not None:
                self.state.worker.close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask :meth:`run` to return; safe from any thread."""
        self._server.should_exit = True

    def _prepare(self, on_ready: Callable[[], None] | None) -> None:
        try:
            llm = self._load()
            llm.engine.admission.limits = self.config.limits
            llm.generate([[0]], SamplingParams(temperature=0, max_tokens=1))
            self.state.attach(llm, self._monitor(llm))
            if on_ready is not None:
                on_ready()
        except BaseException as error:
            self._failure = error
            self.stop()

    def _monitor(self, llm: LLM) -> Monitor | None:
        reference = self.config.reference
        if reference is None:
            return None
        reference.check(llm.tokenizer.fingerprint)
        score = partial(prompt_nats, llm.model)
        return Monitor(reference, self.config.monitor, score=score)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"host={host!r} is no address: {error.strerror}.") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"port {port} of {host} is in use. Choose another with --port, or 0 for a free one."
            ) from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}.") from None
    return listener
