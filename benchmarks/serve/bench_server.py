"""What stands around the model costs: HTTP, the scheduler; and what a known prefix saves.

::

    http       tokens a second of 16 clients that stream over HTTP, over those in process
    added      p99 time between tokens over HTTP minus that in process
    scheduler  time of a round outside of the model, over the round, for 16 running sequences
    prefix     time to the first token of a prompt of 512 of which all but the last 16 are known,
               over that of one that is not

Offline and HTTP runs alternate; medians of the passes count. The server is a process of its own, as
for users, with one thread for products each.

    python -m benchmarks.serve.bench_server [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from benchmarks.common import arguments, draw_bars, save

from sharpen.serve.bench.load import Arrivals, EngineTarget, HttpTarget, Lengths, run_load
from sharpen.serve.llm import LLM
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.worker import Worker

MODELS = ("tiny", "smollm2-135m-instruct")
CLIENTS, PASSES = 16, 3
WANTED = {"http": 0.9, "added_ms": 2.0, "scheduler": 0.03, "prefix": 0.1}


def over_http(model: str, prompts: list[list[int]], output: int) -> tuple[float, float]:
    """Tokens a second, and p99 seconds between tokens."""
    command = [sys.executable, "-m", "sharpen.cli.main", "serve", model, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            ready = json.loads(server.stdout.readline())
            target = HttpTarget(f"{ready['url']}/v1", ready["model"])
            found = run_load(target, prompts, output, Arrivals(), concurrency=CLIENTS)
        finally:
            server.terminate()
    if found.failed:
        raise SystemExit(found.error)
    return found.tokens_per_s, found.percentiles["tbt"]["p99"]


def in_process(llm: LLM, prompts: list[list[int]], output: int) -> tuple[float, float]:
    """The same without a server."""
    worker = Worker(llm.engine)
    try:
        found = run_load(EngineTarget(worker), prompts, output, Arrivals(), concurrency=CLIENTS)
    finally:
        worker.close()
    return found.tokens_per_s, found.percentiles["tbt"]["p99"]


def scheduler_share(llm: LLM, output: int) -> float:
    """Of a round's time, what is not the model's."""
    engine, spent = llm.engine, 0.0
    compute = engine.model.paged

    def timed(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal spent
        begin = time.perf_counter()
        found = compute(*args, **kwargs)
        spent += time.perf_counter() - begin
        return found

    prompts = Lengths(prompt=32, output=output).prompts(CLIENTS, llm.spec.vocab_size, seed=9)
    params = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)
    for prompt in prompts:
        engine.submit(prompt, params, lambda piece: None)
    engine.step()  # the prompts
    engine.model.paged = timed  # type: ignore[method-assign]
    try:
        begin = time.perf_counter()
        engine.run()
        whole = time.perf_counter() - begin
    finally:
        del engine.model.paged
    return 1 - spent / whole


def first_token(llm: LLM, prompt: list[int]) -> float:
    begin = time.perf_counter()
    llm.generate([prompt], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    return time.perf_counter() - begin


def prefix_share(llm: LLM, seed: int) -> float:
    """Time of a prompt whose head is known, over that of one that is new."""
    head, tail = Lengths(prompt=512, output=1).prompts(2, llm.spec.vocab_size, seed=seed)
    cold = first_token(llm, head)
    return first_token(llm, [*head[:496], *tail[:16]]) / cold


def main() -> int:
    options = arguments(__doc__, "serve_server")
    torch.set_num_threads(1)
    models, passes, output = (MODELS[:1], 1, 8) if options.quick else (MODELS, PASSES, 64)
    results: dict[str, Any] = {}
    for model in models:
        llm = LLM(model, max_batch=CLIENTS)
        offline, http = [], []
        for number in range(passes + 1):
            lengths = Lengths(prompt=64, output=output)
            prompts = lengths.prompts(2 * CLIENTS, llm.spec.vocab_size, seed=number)
            pair = in_process(llm, prompts, output), over_http(model, prompts, output)
            if number or options.quick:  # the first warms up
                offline.append(pair[0])
                http.append(pair[1])
        prefix_share(llm, 100)
        results[model] = {
            "offline_tokens_per_s": statistics.median(one[0] for one in offline),
            "http_tokens_per_s": statistics.median(one[0] for one in http),
            "http": statistics.median(h[0] / o[0] for h, o in zip(http, offline, strict=True)),
            "added_ms": 1e3
            * statistics.median(h[1] - o[1] for h, o in zip(http, offline, strict=True)),
            "scheduler": scheduler_share(llm, output),
            "prefix": statistics.median(prefix_share(llm, 101 + i) for i in range(passes)),
        }
        print(model, {k: round(v, 4) for k, v in results[model].items()}, "wanted", WANTED)
    save(
        options,
        results,
        config={"clients": CLIENTS, "passes": passes, "output": output, "wanted": WANTED},
        plot=lambda figure: draw_bars(
            figure.subplots(),
            y_label="tokens a second, 16 clients",
            groups=list(results),
            series={
                "over HTTP": [r["http_tokens_per_s"] for r in results.values()],
                "in process": [r["offline_tokens_per_s"] for r in results.values()],
            },
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
