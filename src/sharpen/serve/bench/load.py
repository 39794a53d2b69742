"""Latency against load: requests come when they come, whether or not earlier ones are done.

Open loop, so that a slow engine cannot slow down its own clients (Schroeder, Wierman and
Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006)::

    poisson:R     gaps exponential with mean 1 / R
    gamma:R:CV    gaps gamma with mean 1 / R and coefficient of variation CV; bursts for CV > 1
    inf           all at once

    TTFT    first token - arrival           TPOT   (last - first token) / (tokens - 1)
    E2E     last token - arrival            TBT    gaps between tokens, of all requests together

Goodput counts requests a second that keep every limit of :class:`Limits`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.serve.request import Piece
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.worker import Worker

__all__ = [
    "Arrivals",
    "EngineTarget",
    "HttpTarget",
    "Lengths",
    "Limits",
    "LoadResult",
    "Target",
    "run_load",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of prompts and answers, and how much of a prompt all share."""

    prompt: int = 128
    """Of a prompt."""

    output: int = 64
    """Of an answer."""

    shared: int = 0
    """Tokens that all prompts begin with."""

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """From ``random:in=128,out=64,shared=32``.

        Raises:
            ConfigError: anything else.

        Examples:
            >>> Lengths.parse("random:in=16,out=8")
            Lengths(prompt=16, output=8, shared=0)
        """
        kind, _, options = text.partition(":")
        names = {"in": "prompt", "out": "output", "shared": "shared"}
        values: dict[str, int] = {}
        for option in filter(None, options.split(",")):
            name, _, value = option.partition("=")
            if kind != "random" or name not in names or not value.isdecimal():
                raise ConfigError(f"{text!r} is no data set; write random:in=128,out=64,shared=0.")
            values[names[name]] = int(value)
        found = cls(**values)
        if kind != "random" or found.prompt < 1 or found.output < 1 or found.shared > found.prompt:
            raise ConfigError(f"{text!r} is no data set; write random:in=128,out=64,shared=0.")
        return found

    def prompts(self, count: int, vocab_size: int, seed: int = 0) -> list[list[int]]:
        """Random prompts."""
        chance = random.Random(seed)
        low = min(5, vocab_size - 1)
        head = [chance.randrange(low, vocab_size) for _ in range(self.shared)]
        rest = self.prompt - self.shared
        return [
            [*head, *(chance.randrange(low, vocab_size) for _ in range(rest))] for _ in range(count)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests come."""

    rate: float | None = None
    """Requests a second; None for all at once."""

    variation: float = 1.0
    """Coefficient of variation of the gaps; 1 is a Poisson process."""

    @classmethod
    def parse(cls, text: str) -> Arrivals:
        """From ``inf``, ``poisson:R`` or ``gamma:R:CV``.

        Raises:
            ConfigError: anything else.

        Examples:
            >>> Arrivals.parse("poisson:4")
            Arrivals(rate=4.0, variation=1.0)
        """
        kind, *numbers = text.split(":")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        if kind == "inf" and not numbers:
            return cls()
        wanted = {"poisson": 1, "gamma": 2}.get(kind)
        if wanted is None or len(values) != wanted or not all(0 < v < 1e6 for v in values):
            raise ConfigError(f"{text!r} is no arrival; write inf, poisson:RATE or gamma:RATE:CV.")
        return cls(rate=values[0], variation=values[1] if wanted == 2 else 1.0)

    def times(self, count: int, seed: int = 0) -> list[float]:
        """Seconds from the start at which requests come, growing."""
        if self.rate is None:
            return [0.0] * count
        shape = 1 / self.variation**2
        gaps = np.random.default_rng(seed).gamma(shape, 1 / (self.rate * shape), count)
        return [float(moment) for moment in np.cumsum(gaps) - gaps[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request must keep to count as good, in seconds."""

    ttft: float = 1.0
    """To the first token."""

    tpot: float = 0.1
    """A token after it, in the mean."""


@dataclass(slots=True)
class _Answer:
    """When the tokens of a request came."""

    arrival: float
    moments: list[float] = field(default_factory=list)
    error: str = ""


class Target(Protocol):
    """Whatever answers requests."""

    async def answer(self, prompt: Sequence[int], count: int, moments: list[float]) -> None:
        """Continue a prompt greedily by ``count`` tokens; note each token's moment."""
        ...


class EngineTarget:
    """An engine in this process.

    Args:
        worker: its thread.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def answer(self, prompt: Sequence[int], count: int, moments: list[float]) -> None:
        """See :class:`Target`."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        failed: list[str] = []

        def on_piece(piece: Piece) -> None:
            moments.extend([time.perf_counter()] * len(piece.ids))
            if piece.finish_reason is not None:
                if piece.finish_reason == "error":
                    failed.append(piece.error)
                loop.call_soon_threadsafe(done.set)

        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        self._worker.submit(prompt, params, on_piece)
        await done.wait()
        if failed:
            raise ExecutionError(failed[0])


class HttpTarget:
    """A server of the OpenAI API, by streams.

    What comes is read once the answer is whole, so that the client takes no time from the server.

    Args:
        url: its base, such as ``http://127.0.0.1:8000/v1``.
        model: name of the model there.
        api_key: if it wants one.
    """

    def __init__(self, url: str, model: str, api_key: str | None = None) -> None:
        import httpx

        headers = {"Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(headers=headers, limits=limits, timeout=None)
        self._url, self._model = url.rstrip("/"), model

    async def answer(self, prompt: Sequence[int], count: int, moments: list[float]) -> None:
        """See :class:`Target`."""
        body = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": count,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        come: list[tuple[float, bytes]] = []
        async with self._client.stream("POST", f"{self._url}/completions", json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                raise ExecutionError(f"status {response.status_code}: {text[:200]}")
            async for data in response.aiter_raw():
                come.append((time.perf_counter(), data))
        made, held = 0, b""
        for moment, data in come:
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if chunk.get("choices"):
                    moments.append(moment)
                if chunk.get("usage"):
                    made = chunk["usage"]["completion_tokens"]
        if made != count:
            raise ExecutionError(f"the server made {made} tokens instead of {count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What a load measured; seconds."""

    requests: int
    """Sent."""

    failed: int
    """Of them, those that ended with an error."""

    duration_s: float
    """From the first arrival to the last token."""

    tokens_per_s: float
    """Generated, all requests together."""

    goodput: float
    """Requests a second within the limits."""

    percentiles: dict[str, dict[str, float]]
    """``ttft``, ``tpot``, ``e2e`` and ``tbt``, each with ``p50``, ``p90`` and ``p99``."""

    error: str = ""
    """The first one."""


def run_load(
    target: Target,
    prompts: Sequence[Sequence[int]],
    output: int,
    arrivals: Arrivals,
    *,
    limits: Limits | None = None,
    seed: int = 0,
    concurrency: int | None = None,
) -> LoadResult:
    """Send every prompt when its time comes, and measure.

    Args:
        target: what answers.
        prompts: one request each.
        output: tokens of each answer.
        arrivals: when they come.
        limits: for goodput.
        seed: of the arrivals.
        concurrency: so many clients, each with a request at a time; None for an open loop.
    """
    answers = asyncio.run(_send(target, prompts, output, arrivals, seed, concurrency))
    return _summary(answers, limits or Limits())


async def _send(
    target: Target,
    prompts: Sequence[Sequence[int]],
    output: int,
    arrivals: Arrivals,
    seed: int,
    concurrency: int | None,
) -> list[_Answer]:
    begin = time.perf_counter()
    clients = asyncio.Semaphore(concurrency or len(prompts))

    async def one(prompt: Sequence[int], moment: float) -> _Answer:
        await asyncio.sleep(max(0.0, begin + moment - time.perf_counter()))
        async with clients:
            answer = _Answer(time.perf_counter() if concurrency else begin + moment)
            try:
                await target.answer(prompt, output, answer.moments)
            except Exception as error:  # counted, and the load goes on
                answer.error = f"{type(error).__name__}: {error}"
        return answer

    times = arrivals.times(len(prompts), seed)
    return await asyncio.gather(*(one(p, t) for p, t in zip(prompts, times, strict=True)))


def _summary(answers: Sequence[_Answer], limits: Limits) -> LoadResult:
    whole = [a for a in answers if not a.error and a.moments]
    failed = [a for a in answers if a.error]
    begin = min(a.arrival for a in answers)
    end = max((a.moments[-1] for a in whole), default=begin)
    duration = max(end - begin, 1e-9)
    ttft = [a.moments[0] - a.arrival for a in whole]
    tpot = [(a.moments[-1] - a.moments[0]) / max(len(a.moments) - 1, 1) for a in whole]
    good = sum(t <= limits.ttft and p <= limits.tpot for t, p in zip(ttft, tpot, strict=True))
    gaps = [b - a for one in whole for a, b in itertools.pairwise(one.moments)]
    measured: dict[str, list[float]] = {
        "ttft": ttft,
        "tpot": tpot,
        "e2e": [a.moments[-1] - a.arrival for a in whole],
        "tbt": gaps,
    }
    return LoadResult(
        requests=len(answers),
        failed=len(failed),
        duration_s=duration,
        tokens_per_s=sum(len(a.moments) for a in whole) / duration,
        goodput=good / duration,
        percentiles={name: _percentiles(values) for name, values in measured.items()},
        error=failed[0].error if failed else "",
    )


def _percentiles(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {}
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)}
