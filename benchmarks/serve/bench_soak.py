"""Ten minutes of mixed and hostile requests: a server's memory, files and threads must not grow.

Twelve clients ask one server of the tiny model, each in a loop and at random::

    answer     a completion, prompts of 1 to 400 tokens, sampled, sometimes several at once
    chat       streamed to its end
    vanish     streamed, and the connection closed in the middle
    schema     an answer in a JSON schema that nobody asked for before
    embed      texts of many lengths
    broken     malformed JSON, wrong types, unknown models, prompts that are too long
    crowd      forty at once into a queue that holds eight

The cache of keys and values is small, so sequences are preempted and known prefixes forgotten. Each
second the server's resident memory, open files and threads are read. After the first two minutes
memory must stay within 3 % to the end, and whatever was broken must have been told so by a 4xx.

    python -m benchmarks.serve.bench_soak [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import psutil
from benchmarks.common import OURS, arguments, save

SECONDS, WARM_S, CLIENTS = 600.0, 120.0, 12
WANTED_GROWTH = 0.03
QUEUE = 8
WORDS = ("sea", "town", "river", "number", "letter", "answer", "of", "the", "and", "to", "in", "a")
BROKEN: tuple[Any, ...] = (
    b"{",
    b"\xff\xfe",
    b"[]",
    {"model": "tiny"},
    {"model": "nobody", "prompt": "x"},
    {"model": "tiny", "prompt": "x", "max_tokens": -1},
    {"model": "tiny", "prompt": "x", "n": 10**6},
    {"model": "tiny", "prompt": "x", "temperature": "hot"},
    {"model": "tiny", "prompt": [10**9]},
    {"model": "tiny", "prompt": "word " * 5000},
    {"model": "tiny", "prompt": "x", "response_format": {"type": "json_schema"}},
)


class Client:
    """Asks at random until the time is over."""

    def __init__(self, link: httpx.AsyncClient, seed: int, until: float) -> None:
        self._link, self._random, self._until = link, random.Random(seed), until
        self.counts: collections.Counter[str] = collections.Counter()

    async def run(self) -> None:
        """See the module for the kinds and what they are."""
        kinds: list[tuple[Callable[[], Awaitable[int]], int]] = [
            (self._answer, 6),
            (self._chat, 4),
            (self._vanish, 4),
            (self._schema, 3),
            (self._embed, 1),
            (self._broken, 4),
            (self._crowd, 1),
        ]
        functions, weights = zip(*kinds, strict=True)
        while time.monotonic() < self._until:
            (kind,) = self._random.choices(functions, weights)
            status = await kind()
            self.counts[f"{kind.__name__[1:]} {status}"] += 1

    def _text(self, most: int = 400) -> str:
        return " ".join(self._random.choices(WORDS, k=self._random.randint(1, most)))

    async def _post(self, path: str, body: Any) -> int:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return (await self._link.post(path, content=content, headers=headers)).status_code

    def _completion(self) -> dict[str, Any]:
        return {
            "model": "tiny",
            "prompt": self._text(),
            "max_tokens": self._random.randint(1, 48),
            "temperature": self._random.choice([0.0, 0.7, 1.3]),
            "n": self._random.choice([1, 1, 1, 3]),
            "logprobs": self._random.choice([None, None, 3]),
        }

    async def _answer(self) -> int:
        return await self._post("/v1/completions", self._completion())

    async def _stream(self, lines: int) -> int:
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": self._text(200)}],
            "max_tokens": 64,
            "stream": True,
        }
        async with self._link.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for _ in answer.aiter_lines():
                lines -= 1
                if not lines:
                    break
        return answer.status_code

    async def _chat(self) -> int:
        return await self._stream(10**6)

    async def _vanish(self) -> int:
        return await self._stream(self._random.randint(1, 20))

    async def _schema(self) -> int:
        names = [f"{self._random.choice(WORDS)}{self._random.randrange(10**6)}" for _ in range(3)]
        schema = {
            "type": "object",
            "properties": {name: {"type": "integer"} for name in names},
            "required": names,
            "additionalProperties": False,
        }
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": self._text(20)}],
            "max_tokens": 40,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "soak", "schema": schema},
            },
        }
        return await self._post("/v1/chat/completions", body)

    async def _embed(self) -> int:
        texts = [self._text(100) for _ in range(self._random.randint(1, 8))]
        return await self._post("/v1/embeddings", {"model": "tiny", "input": texts})

    async def _broken(self) -> int:
        return await self._post("/v1/completions", self._random.choice(BROKEN))

    async def _crowd(self) -> int:
        statuses = await asyncio.gather(*(self._answer() for _ in range(40)))
        self.counts.update(f"crowd {status}" for status in statuses[1:])
        return statuses[0]


async def soak(url: str, process: psutil.Process, seconds: float) -> tuple[Any, Any]:
    """Drive the server; counts of answers, and what was read each second."""
    begin = time.monotonic()
    samples: list[dict[str, float]] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as link:
        clients = [Client(link, seed, begin + seconds) for seed in range(CLIENTS)]
        asking = asyncio.gather(*(client.run() for client in clients))
        while not asking.done():
            samples.append(
                {
                    "seconds": time.monotonic() - begin,
                    "bytes": process.memory_info().rss,
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                }
            )
            await asyncio.sleep(1)
        await asking
    return sum((client.counts for client in clients), collections.Counter()), samples


def growth(samples: list[dict[str, float]], key: str, warm_s: float) -> float:
    """Median of the last fifth after the warm-up over that of the first fifth, less one."""
    kept = [sample[key] for sample in samples if sample["seconds"] >= warm_s]
    fifth = max(1, len(kept) // 5)
    return statistics.median(kept[-fifth:]) / statistics.median(kept[:fifth]) - 1


def main() -> int:
    options = arguments(__doc__, "serve_soak")
    seconds, warm_s = (20.0, 5.0) if options.quick else (SECONDS, WARM_S)
    command = [sys.executable, "-m", "sharpen.cli.main", "serve", "tiny", "--port", "0", "--json"]
    command += ["--kv-cache-memory", "8MiB", "--max-queue", str(QUEUE), "--max-batch", "16"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            ready = json.loads(server.stdout.readline())
            process = psutil.Process(server.pid)
            counts, samples = asyncio.run(soak(ready["url"], process, seconds))
        finally:
            server.terminate()
        code = server.wait(60)
    grown = growth(samples, "bytes", warm_s)
    errors = {key: n for key, n in counts.items() if int(key.split()[1]) >= 500}
    taken = {key: n for key, n in counts.items() if key in ("broken 200", "broken 429")}
    results = {
        "answers": dict(sorted(counts.items())),
        "growth": {key: growth(samples, key, warm_s) for key in ("bytes", "files", "threads")},
        "first_bytes": samples[0]["bytes"],
        "last_bytes": samples[-1]["bytes"],
        "server_errors": errors,
        "exit_code": code,
        "samples": samples[:: max(1, len(samples) // 120)],
    }
    print(json.dumps({key: value for key, value in results.items() if key != "samples"}, indent=1))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        minutes = [sample["seconds"] / 60 for sample in samples]
        axes.plot(minutes, [sample["bytes"] / 2**20 for sample in samples], color=OURS)
        axes.axvline(warm_s / 60, color="0.8")
        axes.set_ylim(0)
        axes.set_xlabel("minutes")
        axes.set_ylabel("resident memory of the server, MiB")

    config = {"seconds": seconds, "warm_s": warm_s, "clients": CLIENTS, "queue": QUEUE}
    save(options, results, config=config, plot=draw)
    fine = not errors and "broken 200" not in taken and code == 0
    return 0 if fine and grown <= WANTED_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
