"""One prompt and one token worker, a core each, against two workers that do both.

The same router, machine, model, type, threads and Poisson stream of requests, half of them a long
prompt with a short answer and half the reverse; arms run in turn. Contenders::

    split      prompt worker + token worker, keys and values sent layer by layer
    mixed      two workers, each computing prompts in parts of a round's budget
    unchunked  two workers whose rounds hold a whole prompt

At each rate the time between tokens of all streams is taken at its p50 and p99; the goodput is the
largest rate at which p99 stays within ``LIMIT`` times the token time of an idle engine. Before
anything is timed, answers through the router must be those of one engine.

Splitting halves the cores that compute either phase, so it loses throughput where the phases are
out of balance; the report says at which rates its time to the first token is worse.

The simulator is calibrated here on one pinned core (``profile_engine``) and must predict p50 of the
time to the first token and of the time between tokens of each arm and rate within 15 %.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch
from benchmarks.common import arguments, save

from sharpen.plan.serving.machines import Link, Machine
from sharpen.plan.serving.perf_model import MeasuredPerfModel
from sharpen.plan.serving.slo import percentile
from sharpen.plan.serving.traces import Trace
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.simulate.cluster import ClusterSim, Placed, SimConfig
from sharpen.serve.simulate.profile import profile_engine
from sharpen.serve.simulate.transfer import Transfer

MODEL = "smollm2-135m-instruct"
BUDGET, WHOLE = 128, 1024
MAX_BATCH, CONTEXT = 16, 1024
LONG, SHORT = (640, 8), (32, 48)  # tokens of prompt and answer
LIMIT = 3.0
WANTED_ERROR = 0.15


@dataclass(frozen=True)
class Arm:
    """A contender."""

    name: str
    roles: tuple[str, str]
    policy: str
    budget: int


ARMS = (
    Arm("split", ("prefill", "decode"), "kv_token_jsq", BUDGET),
    Arm("mixed", ("mixed", "mixed"), "token_jsq", BUDGET),
    Arm("unchunked", ("mixed", "mixed"), "token_jsq", WHOLE),
)


@contextmanager
def serving(*words: str, core: int | None = None) -> Iterator[str]:
    """A server in a process of its own, on one core; gives its address."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    process = subprocess.Popen(
        [*pin, sys.executable, "-m", "sharpen.cli.main", "serve", MODEL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@contextmanager
def cluster(arm: Arm) -> Iterator[str]:
    """The router of an arm."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        urls = [
            stack.enter_context(
                serving(
                    *("--port", "0", "--json", "--role", role, "--dtype", "float32"),
                    *("--max-batch", str(MAX_BATCH), "--max-context", str(CONTEXT)),
                    *("--max-batched-tokens", str(arm.budget), "--no-prefix-caching"),
                    *("--layerwise-from", "64"),
                    core=cores[i % len(cores)],
                )
            )
            for i, role in enumerate(arm.roles)
        ]
        yield stack.enter_context(
            serving(
                *("--port", "0", "--json", "--role", "router", "--policy", arm.policy),
                *(f"--worker={url}" for url in urls),
            )
        )


def stream(seconds: float, rate: float, seed: int) -> Trace:
    """Requests of both kinds in random order."""
    rng = random.Random(seed)
    rows, now = [], rng.expovariate(rate)
    while now < seconds:
        rows.append((now, *(LONG if rng.random() < 0.5 else SHORT)))
        now += rng.expovariate(rate)
    return Trace.of(rows)


def ask(url: str, prompt: list[int], output: int, times: list[float]) -> None:
    """Stream one answer; notes when each of its tokens came."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": output,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    headers = {"Content-Type": "application/json"}
    link.request("POST", "/v1/completions", json.dumps(body), headers)
    answer = link.getresponse()
    assert answer.status == 200, answer.read()
    while line := answer.readline():
        if line.startswith(b"data: {"):
            times.append(time.perf_counter())
    link.close()


def play(url: str, trace: Trace, vocab: int) -> dict[str, Any]:
    """Send a trace in real time; seconds to the first token and between tokens."""
    rng = random.Random(1)
    prompts = [[rng.randrange(100, vocab) for _ in range(n)] for n in trace.prompt_tokens]
    came: list[list[float]] = [[] for _ in prompts]
    sent, threads = [], []
    begin = time.perf_counter()
    for i, arrival in enumerate(trace.arrival_s):
        time.sleep(max(begin + arrival - time.perf_counter(), 0))
        sent.append(time.perf_counter())
        words = (url, prompts[i], trace.output_tokens[i], came[i])
        threads.append(threading.Thread(target=ask, args=words))
        threads[-1].start()
    for thread in threads:
        thread.join()
    first = [times[0] - start for times, start in zip(came, sent, strict=True)]
    gaps = [b - a for times in came for a, b in itertools.pairwise(times)]
    return summary(first, gaps)


def summary(first: Sequence[float], gaps: Sequence[float]) -> dict[str, Any]:
    """Percentiles in milliseconds."""
    out: dict[str, Any] = {}
    for name, values in (("ttft_ms", sorted(first)), ("tbt_ms", sorted(gaps))):
        out[name] = {f"p{p}": 1e3 * percentile(values, p) for p in (50, 90, 99)}
    return out


def predict(
    arm: Arm, trace: Trace, perf: MeasuredPerfModel, llm: LLM, link: Link
) -> dict[str, Any]:
    """What the simulator says of the same trace."""
    homes = {"prefill": "prompt", "decode": "token", "mixed": "mixed"}
    one = Machine(name="core", perf=perf, kv_capacity=MAX_BATCH * CONTEXT)
    placed = [Placed(one, homes[role]) for role in arm.roles]  # type: ignore[arg-type]
    spec = llm.spec
    sim = ClusterSim(
        placed,
        arm.policy,
        trace,
        transfer=Transfer(
            layers=spec.num_layers,
            kv_bytes=2 * spec.num_layers * spec.kv_size * 4,
            link=link,
            threshold=64,
        ),
        config=SimConfig(max_batch_tokens=arm.budget, max_batch_size=MAX_BATCH, block_size=16),
    )
    result = sim.run()
    gaps = [gap for gap, count in result.gaps for _ in range(count)]
    return summary(result.ttft_s(), gaps)


def same_answers(url: str, llm: LLM) -> bool:
    """Whether the router answers as one engine does."""
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    for text in ("The sea is", "A list of towns: " * 20):
        parts = urlsplit(url)
        link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
        body = {"model": MODEL, "prompt": text, "max_tokens": 12, "temperature": 0}
        headers = {"Content-Type": "application/json"}
        link.request("POST", "/v1/completions", json.dumps({**body, "ignore_eos": True}), headers)
        found = json.loads(link.getresponse().read())["choices"][0]["text"]
        link.close()
        if found != llm.generate(text, params).text:
            return False
    return True


def main() -> int:
    """Run all arms at all rates."""
    args = arguments(__doc__, "serve_split")
    rates, seconds = ((0.5,), 6.0) if args.quick else ((0.5, 1.0, 1.5, 2.0, 3.0), 60.0)
    arms = ARMS[:2] if args.quick else ARMS
    torch.set_num_threads(1)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    settings: dict[str, Any] = {"dtype": "float32", "max_context": CONTEXT}
    llm = LLM(
        MODEL, max_batch=MAX_BATCH, max_batched_tokens=WHOLE, prefix_caching=False, **settings
    )
    perf = (
        profile_engine(llm.engine, prompts=[32, 128, 640], batches=[1, 4], repeats=2)
        if args.quick
        else profile_engine(llm.engine, repeats=7)
    )
    os.sched_setaffinity(0, before)
    limit_ms = LIMIT * perf.iteration_s(0, 1, 32) * 1e3
    link = Link(bandwidth=1e9, latency_s=2e-3)
    rows: list[dict[str, Any]] = []
    for rate in rates:
        for arm in arms:
            trace = stream(seconds, rate, seed=3)
            with cluster(arm) as url:
                if not same_answers(url, llm):
                    print(f"{arm.name}: answers differ from those of one engine")
                    return 1
                found = play(url, trace, llm.spec.vocab_size)
            told = predict(arm, trace, perf, llm, link)
            errors = {
                name: abs(told[name]["p50"] / found[name]["p50"] - 1)
                for name in ("ttft_ms", "tbt_ms")
            }
            rows.append(
                {"arm": arm.name, "rate": rate, **found, "predicted": told, "error_p50": errors}
            )
            print(
                f"{arm.name:10s} {rate:4.1f}/s  TBT p50 {found['tbt_ms']['p50']:7.1f} p99 "
                f"{found['tbt_ms']['p99']:7.1f} ms  TTFT p50 {found['ttft_ms']['p50']:7.0f} ms   "
                f"predicted {told['tbt_ms']['p50']:.1f} {told['tbt_ms']['p99']:.1f} "
                f"{told['ttft_ms']['p50']:.0f}",
                flush=True,
            )
    goodput = {
        arm.name: max(
            (r["rate"] for r in rows if r["arm"] == arm.name and r["tbt_ms"]["p99"] <= limit_ms),
            default=0.0,
        )
        for arm in arms
    }
    ratios = {
        other.name: [
            b["tbt_ms"]["p99"] / a["tbt_ms"]["p99"]
            for a, b in (
                (_row(rows, "split", rate), _row(rows, other.name, rate)) for rate in rates
            )
        ]
        for other in arms[1:]
    }
    loses = [
        rate
        for rate in rates
        if _row(rows, "split", rate)["ttft_ms"]["p50"] > _row(rows, "mixed", rate)["ttft_ms"]["p50"]
    ]
    worst = max(max(row["error_p50"].values()) for row in rows)
    print(f"goodput at p99 TBT <= {limit_ms:.0f} ms: {goodput}; p99 TBT over split's: {ratios}")
    print(f"split has the later first token at rates {loses}; worst p50 error {worst:.0%}")
    results = {
        "rows": rows,
        "goodput": goodput,
        "limit_ms": limit_ms,
        "p99_tbt_over_split": ratios,
        "later_first_token_at": loses,
        "worst_error_p50": worst,
        "wanted_error": WANTED_ERROR,
        "profile": perf.to_dict(),
    }
    config = {
        "model": MODEL,
        "rates": rates,
        "seconds": seconds,
        "long": LONG,
        "short": SHORT,
        "budget": BUDGET,
        "unchunked_budget": WHOLE,
    }

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for arm, marker in zip(arms, "os^", strict=False):
            own = [row for row in rows if row["arm"] == arm.name]
            x = [row["rate"] for row in own]
            axes.plot(x, [row["tbt_ms"]["p99"] for row in own], f"-{marker}", label=arm.name)
            told = [row["predicted"]["tbt_ms"]["p99"] for row in own]
            axes.plot(x, told, f":{marker}", color="0.6", markersize=4)
        axes.axhline(limit_ms, color="0.8", linewidth=1)
        axes.set_xlabel("requests a second (dotted: simulated)")
        axes.set_ylabel("time between tokens, p99, ms")
        axes.set_yscale("log")
        axes.legend()

    save(args, results, config=config, plot=draw)
    return 0


def _row(rows: Sequence[dict[str, Any]], arm: str, rate: float) -> dict[str, Any]:
    return next(row for row in rows if (row["arm"], row["rate"]) == (arm, rate))


if __name__ == "__main__":
    sys.exit(main())
