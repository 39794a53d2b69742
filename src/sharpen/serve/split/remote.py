"""A worker as the router sees it, and the connections to it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from sharpen.core.errors import ConfigError, ExecutionError

__all__ = ["Gone", "RemoteWorker", "Remotes", "expect", "lines_of"]

_HOMES: dict[str, Literal["prompt", "token", "mixed"]] = {
    "prefill": "prompt",
    "decode": "token",
    "mixed": "mixed",
}


class Gone(Exception):
    """A worker does not answer, or lost a request."""

    def __init__(self, worker: RemoteWorker, why: object) -> None:
        super().__init__(f"the worker {worker.url} failed: {why}")
        self.worker = worker


@dataclass(slots=True, eq=False)
class RemoteWorker:
    """A worker as the router sees it; a :class:`~sharpen.serve.simulate.policies.Load`."""

    number: int
    url: str
    home: Literal["prompt", "token", "mixed"]
    capacity: int
    max_batch: int
    pending_tokens: int = 0
    reserved_tokens: int = 0
    foreign: int = 0
    num_jobs: int = 0
    down_s: float | None = None
    """When it was last found not to answer."""

    @classmethod
    def of(cls, number: int, url: str, info: dict[str, Any]) -> RemoteWorker:
        """From what it tells of itself."""
        return cls(number, url, _HOMES[info["role"]], info["capacity"], info["max_batch"])

    @property
    def waiting(self) -> bool:
        """Whether it has more requests than run at the same time."""
        return self.num_jobs > 1 if self.home == "prompt" else self.num_jobs > self.max_batch


class Remotes:
    """Opens connections to workers.

    Args:
        api_key: to show to them.
    """

    def __init__(self, api_key: str | None) -> None:
        self.headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def link(self, url: str, timeout_s: float) -> http.client.HTTPConnection:
        """A connection to a worker.

        Raises:
            ConfigError: ``url`` is no address.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"worker={url!r} is no address. Write http://HOST:PORT.")
        return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)

    def info(self, url: str, deadline: float) -> dict[str, Any]:
        """What a worker tells of itself; asked again until ``deadline`` while it loads.

        Raises:
            ExecutionError: it does not answer.
        """
        while True:
            text, problem = b"", ""
            try:
                with closing(self.link(url, 10.0)) as link:
                    link.request("GET", "/split/info", headers=self.headers)
                    answer = link.getresponse()
                    text = answer.read()
                if answer.status == 200:
                    found: dict[str, Any] = json.loads(text)
                    return found
                problem = f"answered with status {answer.status}: {text[:300]!r}"
                loading = answer.status == 503
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                problem, loading = f"does not answer: {error}", True
            if not loading or time.monotonic() > deadline:
                raise ExecutionError(
                    f"the worker {url} {problem}. Start it with sharpen serve MODEL --role prefill "
                    "(or decode, mixed) first."
                )
            time.sleep(0.2)

    def is_healthy(self, worker: RemoteWorker) -> bool:
        """Whether it answers."""
        with closing(self.link(worker.url, 1.0)) as link:
            try:
                link.request("GET", "/health", headers=self.headers)
                return link.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


def lines_of(worker: RemoteWorker, answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The lines of an answer.

    Raises:
        Gone: the connection broke.
    """
    while True:
        try:
            line = answer.readline()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Gone(worker, error) from error
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)


def expect(worker: RemoteWorker, lines: Iterator[dict[str, Any]], name: str) -> dict[str, Any]:
    """The next line, which has ``name``.

    Raises:
        Gone: it has not, or there is none.
    """
    line = next(lines, {})
    if name not in line:
        raise Gone(worker, line.get("error") or "its answer ended early")
    return line
