"""A server of OpenAI's chat API that says what a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Server", "answer", "running_server"]

Reply = Callable[[Mapping[str, Any]], Any]


@dataclass
class Server:
    """What it is told to say, and what it was asked.

    A script is called with each body and gives the text of the reply; a mapping, the whole answer;
    bytes, what is sent as it is; a pair of a status and any of these, with headers as a third; or
    a function that gets the connection.
    """

    script: Reply
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    models: tuple[str, ...] = ("stub",)
    lock: threading.Lock = field(default_factory=threading.Lock)


def answer(*texts: str, usage: Any = None, reason: str = "stop") -> dict[str, Any]:
    """The answer that a server gives."""
    words = sum(len(text.split()) for text in texts)
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "stub",
        "choices": [
            {
                "index": i,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason,
            }
            for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": words or 1} if usage is None else usage,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        told: Server = self.server.told
        self._send(200, {"data": [{"id": name} for name in told.models]}, {})

    def do_POST(self) -> None:
        told: Server = self.server.told
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with told.lock:
            told.bodies.append(body)
            told.headers.append(dict(self.headers))
            told.at_once += 1
            told.most_at_once = max(told.most_at_once, told.at_once)
        try:
            reply = told.script(body)
        finally:
            with told.lock:
                told.at_once -= 1
        status, headers = 200, {}
        if isinstance(reply, tuple):
            status, reply, *rest = reply
            headers = rest[0] if rest else {}
        if callable(reply):
            reply(self)
        else:
            self._send(status, reply, headers)

    def _send(self, status: int, reply: Any, headers: Mapping[str, str]) -> None:
        if isinstance(reply, str):
            reply = answer(reply)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no matter."""


def hang_up(handler: Any) -> None:
    """End the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def stall(seconds: float) -> Callable[[Any], None]:
    """Say nothing for a while, then hang up."""

    def do(handler: Any) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return do


def cut(handler: Any) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    hang_up(handler)


def drip(seconds: float) -> Callable[[Any], None]:
    """Send a byte now and then, for ever."""

    def do(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(seconds)

    return do


def events(*lines: str) -> Callable[[Any], None]:
    """A stream of lines."""

    def do(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for line in lines:
            handler.wfile.write(line.encode() + b"\n\n")
        handler.close_connection = True

    return do


@contextmanager
def running_server(script: Reply, **settings: Any) -> Iterator[Server]:
    """A server on a free port of this machine."""
    told = Server(script, **settings)
    server = _Http(("127.0.0.1", 0), _Handler)
    server.told = told  # type: ignore[attr-defined]
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
