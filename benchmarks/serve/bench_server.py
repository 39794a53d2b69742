"""What stands around the model costs: HTTP, the scheduler; and what a known prefix saves.

::

    http       tokens a second of 16 clients that stream over HTTP, over those in process
    added      p99 time between tokens over HTTP minus that in process, once all 16 answers run
    scheduler  time of a round outside of the model, over the round, for 16 running sequences
    prefix     time to the first token of a prompt of which all but the last 16 are known, over that
               of one that is not; prompts of 512 and of 1,536 tokens
    same       of a prompt of 512 that is known whole
    floor      of one token alone: what a model costs that reads its weights once; prompts of 512

Offline and HTTP runs alternate; medians of the passes count. The server is a process of its own, as
for users, with one thread for products each; so is the client, which is this one. M is a model of
random weights with 32,000 tokens (``bench_engines``).

    python -m benchmarks.serve.bench_server [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from benchmarks.common import arguments, draw_bars, save
from benchmarks.serve.bench_engines import SMOLLM, model_m
from tokenizers import Tokenizer as Backend

from sharpen.models import load_tokenizer, save_model
from sharpen.models.tokenizer import Tokenizer
from sharpen.serve.bench.load import (
    Arrivals,
    EngineTarget,
    HttpTarget,
    Lengths,
    LoadResult,
    Target,
    run_load,
)
from sharpen.serve.llm import LLM
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.worker import Worker

CLIENTS, PASSES = 16, 5
WANTED = {"http": 0.9, "added_ms": 2.0, "scheduler": 0.03, "prefix": 0.1}


def tokenizer_m(vocab_size: int) -> Tokenizer:
    """That of SmolLM2 without its last merges."""
    whole = load_tokenizer(SMOLLM)
    document = json.loads(whole.backend.to_str())
    model = document["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i < vocab_size}
    pairs = [m if isinstance(m, list) else m.split(" ", 1) for m in model["merges"]]
    model["merges"] = [pair for pair in pairs if "".join(pair) in model["vocab"]]
    return Tokenizer(Backend.from_str(json.dumps(document)), whole.config)


def folder_m(where: Path) -> str:
    """M as files."""
    model = model_m()
    save_model(model, where / "m", tokenizer=tokenizer_m(model.spec.vocab_size))
    return str(where / "m")


class Recorder:
    """A target whose moments are kept."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.answers: list[list[float]] = []

    async def answer(self, prompt: Sequence[int], count: int, moments: list[float]) -> None:
        """As that of the target."""
        self.answers.append(moments)
        await self._target.answer(prompt, count, moments)

    def p99(self) -> float:
        """Seconds between tokens while all answers run."""
        begin = max(moments[0] for moments in self.answers)
        end = min(moments[-1] for moments in self.answers)
        running = [[m for m in moments if begin <= m <= end] for moments in self.answers]
        return float(np.percentile(np.concatenate([np.diff(one) for one in running]), 99))


@contextmanager
def serving(model: str) -> Iterator[dict[str, Any]]:
    """A server; gives what it says when it is ready."""
    command = [sys.executable, "-m", "sharpen.cli.main", "serve", model, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.terminate()


def measured(target: Target, prompts: list[list[int]], output: int) -> tuple[float, float]:
    """Tokens a second, and p99 seconds between tokens."""
    recorder = Recorder(target)
    found: LoadResult = run_load(recorder, prompts, output, Arrivals(), concurrency=CLIENTS)
    if found.failed:
        raise SystemExit(found.error)
    return found.tokens_per_s, recorder.p99()


def in_process(llm: LLM, prompts: list[list[int]], output: int) -> tuple[float, float]:
    """The same without a server."""
    worker = Worker(llm.engine)
    try:
        return measured(EngineTarget(worker), prompts, output)
    finally:
        worker.close()


def scheduler_share(llm: LLM, output: int) -> float:
    """Of a round's time, what is not the model's."""
    engine, spent = llm.engine, 0.0
    model: Any = engine.model

    def timed(compute: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*args: Any) -> torch.Tensor:
            nonlocal spent
            begin = time.perf_counter()
            found = compute(*args)
            spent += time.perf_counter() - begin
            return found

        return run

    prompts = Lengths(prompt=32, output=output).prompts(CLIENTS, llm.spec.vocab_size, seed=9)
    params = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)
    for prompt in prompts:
        engine.submit(prompt, params, lambda piece: None)
    engine.step()  # the prompts
    model.states, model.logits = timed(model.states), timed(model.logits)
    try:
        begin = time.perf_counter()
        engine.run()
        whole = time.perf_counter() - begin
    finally:
        del model.states, model.logits
    return 1 - spent / whole


def first_token(llm: LLM, prompt: list[int]) -> float:
    begin = time.perf_counter()
    llm.generate([prompt], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    return time.perf_counter() - begin


def prefix_share(llm: LLM, tokens: int, seed: int) -> tuple[float, float, float]:
    """Times over that of a new prompt: its head is known, all of it is, and one token alone."""
    head, tail = Lengths(prompt=tokens, output=1).prompts(2, llm.spec.vocab_size, seed=seed)
    cold = first_token(llm, head)
    hit = first_token(llm, [*head[:-16], *tail[:16]])
    return hit / cold, first_token(llm, head) / cold, first_token(llm, tail[16:17]) / cold


def compare(model: str, passes: int, output: int, warm: bool) -> dict[str, Any]:
    """One model."""
    llm = LLM(model, max_batch=CLIENTS)
    offline, http = [], []
    with serving(model) as ready:
        for number in range(passes + warm):
            lengths = Lengths(prompt=64, output=output)
            prompts = lengths.prompts(CLIENTS, llm.spec.vocab_size, seed=number)
            target = HttpTarget(f"{ready['url']}/v1", ready["model"])
            pair = in_process(llm, prompts, output), measured(target, prompts, output)
            if number >= warm:
                offline.append(pair[0])
                http.append(pair[1])
    prefix_share(llm, 512, 100)
    prefixes = [prefix_share(llm, 512, 101 + i) for i in range(passes)]
    longer = [prefix_share(llm, 1536, 201 + i) for i in range(passes)]
    return {
        "offline_tokens_per_s": statistics.median(one[0] for one in offline),
        "http_tokens_per_s": statistics.median(one[0] for one in http),
        "http": statistics.median(h[0] / o[0] for h, o in zip(http, offline, strict=True)),
        "added_ms": 1e3
        * statistics.median(h[1] - o[1] for h, o in zip(http, offline, strict=True)),
        "scheduler": statistics.median(scheduler_share(llm, output) for _ in range(passes)),
        "prefix": statistics.median(one[0] for one in prefixes),
        "same": statistics.median(one[1] for one in prefixes),
        "floor": statistics.median(one[2] for one in prefixes),
        "prefix_long": statistics.median(one[0] for one in longer),
    }


def main() -> int:
    options = arguments(__doc__, "serve_server")
    torch.set_num_threads(1)
    passes, output = (1, 16) if options.quick else (PASSES, 128)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = {"tiny": "tiny"}
        if not options.quick:
            models = {SMOLLM: SMOLLM, "m": folder_m(Path(folder))}
        for name, model in models.items():
            results[name] = compare(model, passes, output, warm=not options.quick)
            print(name, {k: round(v, 4) for k, v in results[name].items()}, "wanted", WANTED)
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
