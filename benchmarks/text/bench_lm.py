"""What a call of a language model costs this machine beside the model: LM and OpenAI's client.

    python -m benchmarks.text.bench_lm

A server in another process answers at once, so that what is left is the client: building the
request, HTTP, reading the answer. Both clients ask the same prompts, eight at a time, in turn; the
replies are compared first. CPU seconds of this process count, since the server shares the cores.
Then the same prompts through the cache, and eight processes that all want the same replies.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, draw_bars, ratio, save, summarize

AT_ONCE = 8
SIZES = {"short": 50, "long": 8000}  # characters of a prompt
REPLY = "A reply of some words, as they come. " * 5
PROCESSES = 8


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        """The same reply to all."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"{REPLY}{len(body['messages'][0]['content'])}"
        message = {"role": "assistant", "content": text}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "stub",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50},
        }
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        self.wfile.write(head.encode() + b"\r\n\r\n" + data)


def _serve(told: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    told.put(server.server_port)
    server.serve_forever()


def _cpu(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def _calls(url: str, count: int, repeats: int) -> dict[str, Any]:
    import openai

    from sharpen import LM

    lm = LM(url, options={"model": "stub"}, concurrency=AT_ONCE, max_tokens=100)
    client = openai.OpenAI(base_url=url, api_key="x")
    pool = ThreadPoolExecutor(AT_ONCE)

    def theirs(prompt: str) -> str:
        answer = client.chat.completions.create(
            model="stub",
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=100,
        )
        return answer.choices[0].message.content or ""

    found = {}
    for name, size in SIZES.items():
        prompts = [f"{i:06d}" + "x" * (size - 6) for i in range(count)]
        contenders = {"sharpen": lambda p=prompts: lm.map(p)}
        contenders["openai"] = lambda p=prompts: list(pool.map(theirs, p))
        assert contenders["sharpen"]() == contenders["openai"]()
        samples: dict[str, list[tuple[float, float]]] = {one: [] for one in contenders}
        for _ in range(repeats):
            for one, work in contenders.items():
                samples[one].append(_cpu(work))
        ms = {one: [1e3 * cpu / count for cpu, _ in rows] for one, rows in samples.items()}
        found[name] = {
            "cpu_ms_a_call": ms,
            "summary": {one: summarize(values) for one, values in ms.items()},
            "calls_per_s": {
                one: statistics.median(count / wall for _, wall in rows)
                for one, rows in samples.items()
            },
            "ratio": ratio(ms["openai"], ms["sharpen"]),
        }
    lm.close()
    client.close()
    return found


def _cache(url: str, folder: Path, count: int) -> dict[str, float]:
    from sharpen import LM

    options = {"model": "stub"}
    lm = LM(url, options=options, cache=folder / "replies.sqlite", concurrency=AT_ONCE)
    prompts = [f"cached {i}" for i in range(count)]
    miss, _ = _cpu(lambda: lm.map(prompts))
    hit, _ = _cpu(lambda: lm.map(prompts))
    alone, wall = _cpu(lambda: [lm(prompt) for prompt in prompts])
    assert lm.usage.calls == count
    lm.close()
    return {
        "miss_cpu_ms": 1e3 * miss / count,
        "hit_cpu_ms": 1e3 * hit / count,
        "hit_alone_cpu_ms": 1e3 * alone / count,
        "hits_per_s_alone": count / wall,
    }


_WORKER = """
import sys
from sharpen import LM
url, file, count = sys.argv[1:]
lm = LM(url, options={"model": "stub"}, cache=file)
lm.map([f"shared {i}" for i in range(int(count))])
print(lm.usage.calls)
"""


def _shared(url: str, folder: Path, count: int) -> dict[str, Any]:
    """Processes that want the same replies from one cache."""
    command = [sys.executable, "-c", _WORKER, url, str(folder / "shared.sqlite"), str(count)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    paid = [int(worker.communicate()[0]) for worker in workers]
    return {"processes": PROCESSES, "replies": count, "wanted": PROCESSES * count, "paid": paid}


def main() -> int:
    args = arguments(__doc__, "text_lm")
    count, repeats = (40, 1) if args.quick else (300, 7)
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    server = context.Process(target=_serve, args=(told,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{told.get(timeout=60)}/v1"
        with tempfile.TemporaryDirectory() as name:
            results = {
                "calls": _calls(url, count, repeats),
                "cache": _cache(url, Path(name), count),
                "shared": _shared(url, Path(name), count),
                "versions": {p: metadata.version(p) for p in ("openai", "httpx")},
            }
    finally:
        server.kill()
        server.join()
    assert sum(results["shared"]["paid"]) == count, results["shared"]

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        rows = results["calls"]
        series = {
            one: [row["summary"][one]["median"] for row in rows.values()]
            for one in ("sharpen", "openai")
        }
        groups = [f"{size:,} characters" for size in SIZES.values()]
        draw_bars(axes, y_label="CPU ms a call", groups=groups, series=series)
        ratios = ", ".join(f"{row['ratio']:.2f} x" for row in rows.values())
        axes.set_title(f"a call beside the model: {ratios} less")

    config = {"calls": count, "repeats": repeats, "at_once": AT_ONCE, "sizes": SIZES}
    save(args, results, config=config, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
