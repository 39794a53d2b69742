"""One prompt and one token worker, a core each, against two workers that do both.

The same router, machine, model, type, threads and Poisson stream of requests, half of them a long
prompt with a short answer and half the reverse, so that nearly all the work is prompts. All arms
are up all the time and take turns, rate by rate. Contenders::

    split      prompt worker + token worker, keys and values sent layer by layer
    mixed      two workers, each computing prompts in parts of a round's budget
    unchunked  two workers whose rounds hold a whole prompt; at the middle rate alone

At each rate the time between tokens of all streams is taken at its p50 and p99; the goodput is the
largest rate at which p99 stays below a limit, for several limits, in token times of an engine
without neighbours. Before anything is timed, answers through the router must be those of one
engine.

Splitting halves the cores that compute either phase, so it loses throughput where the phases are
out of balance; the report says at which rates its time to the first token is worse.

The simulator is calibrated on one pinned core (``profile_engine``). Lone requests to an arm tell
what a server adds to a first token and to a round, and a long prompt beside a short one's answer
what both workers cost each other, since they share the memory and what the router takes: a round
takes as much of the difference as the simulated neighbour works. It must predict the goodput, and
the mean time between tokens and to the first token of each arm and rate within 15 %. Means, because
a median of first tokens is either of two times, ten times apart, where half of the prompts wait for
a long one. Those of long and of short prompts are told apart in the results; a stream holds some
thirty short ones, so that one of them that waits, or does not, changes their mean by half.

Apart from that, keys and values of 1000 tokens go to a token worker, by HTTP and by shared memory
in turn, with checksums first.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import http.client
import itertools
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch
from benchmarks.common import arguments, save

from sharpen.core.model_spec import ModelSpec
from sharpen.models.paged import PagedCache
from sharpen.plan.serving.machines import Link, Machine
from sharpen.plan.serving.perf_model import MeasuredPerfModel
from sharpen.plan.serving.slo import percentile
from sharpen.plan.serving.traces import Trace
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.simulate.cluster import ClusterSim, Placed, SimConfig
from sharpen.serve.simulate.profile import profile_engine
from sharpen.serve.simulate.transfer import Transfer
from sharpen.serve.split.records import KVSender
from sharpen.serve.split.ring import Rings
from sharpen.serve.split.routes import pack_params, send_records

MODEL = "smollm2-135m-instruct"
BUDGET, WHOLE = 128, 1024
MAX_BATCH, CONTEXT = 16, 1024
LONG, SHORT = (640, 8), (32, 48)  # tokens of prompt and answer
RATES, SECONDS = (0.4, 0.6, 0.8), 90.0
LIMITS = (3.0, 5.0, 10.0)
BESIDE = 96  # tokens of an answer beside a long prompt: about as long as it takes
ROUNDS_OF_SHARES = 4  # until what both workers slow each other changes no more
PAUSE_S = 1.0  # before a prompt to calibrate by: about as long as a worker waits for one
WANTED_ERROR = 0.15
JUDGED = ("tbt_ms", "ttft_ms")  # whose means must be predicted
SENT = 1000  # tokens whose keys and values are sent


@dataclass(frozen=True)
class Arm:
    """A contender."""

    name: str
    roles: tuple[str, str]
    policy: str
    budget: int


@dataclass(frozen=True)
class Cluster:
    """Addresses of an arm."""

    url: str
    workers: list[str]


ARMS = (
    Arm("split", ("prefill", "decode"), "kv_token_jsq", BUDGET),
    Arm("mixed", ("mixed", "mixed"), "token_jsq", BUDGET),
    Arm("unchunked", ("mixed", "mixed"), "token_jsq", WHOLE),
)


def start(*words: str, core: int | None = None) -> subprocess.Popen[str]:
    """A server in a process of its own, on one core; it says its address when it is ready."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    return subprocess.Popen(
        [*pin, sys.executable, "-m", "sharpen.cli.main", "serve", MODEL, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def address(process: subprocess.Popen[str]) -> str:
    """Where a server listens, once it is ready."""
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())["url"])


@contextmanager
def clusters(arms: Sequence[Arm]) -> Iterator[dict[str, Cluster]]:
    """All arms, by name."""
    cores = sorted(os.sched_getaffinity(0))
    processes: list[subprocess.Popen[str]] = []

    def begin(*words: str, core: int | None = None) -> subprocess.Popen[str]:
        processes.append(start(*words, core=core))
        return processes[-1]

    try:
        workers = {
            arm.name: [
                begin(
                    *("--port", "0", "--json", "--role", role, "--dtype", "float32"),
                    *("--max-batch", str(MAX_BATCH), "--max-context", str(CONTEXT)),
                    *("--max-batched-tokens", str(arm.budget), "--no-prefix-caching"),
                    *("--layerwise-from", "64"),
                    core=cores[i % len(cores)],
                )
                for i, role in enumerate(arm.roles)
            ]
            for arm in arms
        }
        found = {}
        for arm in arms:
            urls = [address(one) for one in workers[arm.name]]
            router = begin(
                *("--port", "0", "--json", "--role", "router", "--policy", arm.policy),
                *(f"--worker={url}" for url in urls),
            )
            found[arm.name] = Cluster(address(router), urls)
        yield found
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


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
    return summary(trace, first, gaps)


def summary(trace: Trace, first: Sequence[float], gaps: Sequence[float]) -> dict[str, Any]:
    """Mean and percentiles in milliseconds; of both kinds of prompts also apart."""
    kinds = {
        f"ttft_{name}_ms": [
            value
            for value, tokens in zip(first, trace.prompt_tokens, strict=True)
            if tokens == kind[0]
        ]
        for name, kind in (("long", LONG), ("short", SHORT))
    }
    return {
        name: {
            "mean": 1e3 * statistics.mean(values),
            **{f"p{p}": 1e3 * percentile(sorted(values), p) for p in (50, 90, 99)},
        }
        for name, values in {**kinds, "ttft_ms": first, "tbt_ms": gaps}.items()
    }


@dataclass(frozen=True)
class Told:
    """What the simulator says, in seconds."""

    first: list[float]
    gaps: list[float]
    busy: list[float]
    """Share of the time that each machine works until the last answer."""


@dataclass(frozen=True)
class Calibration:
    """What an arm's rounds take."""

    start_s: dict[int, float]
    """Of a first token, beyond what is simulated, by the prompt's tokens."""

    round_s: float
    """Of a round of next tokens, beyond an engine without a server."""

    quiet: MeasuredPerfModel
    """While the other worker rests."""

    beside: MeasuredPerfModel
    """While it works."""

    prompt_factor: float
    """By which prompts are slower then."""

    token_s: float
    """By which a round of next tokens is longer then."""


def simulate(
    arm: Arm, trace: Trace, perfs: Sequence[MeasuredPerfModel], llm: LLM, link: Link
) -> Told:
    """A trace on two cores, whose times are ``perfs``."""
    homes = {"prefill": "prompt", "decode": "token", "mixed": "mixed"}
    placed = [
        Placed(Machine(name="core", perf=perf, kv_capacity=MAX_BATCH * CONTEXT), homes[role])  # type: ignore[arg-type]
        for perf, role in zip(perfs, arm.roles, strict=True)
    ]
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
    return Told(result.ttft_s(), gaps, [busy / result.end_s for busy in result.busy_s])


def predict(arm: Arm, trace: Trace, found: Calibration, llm: LLM, link: Link) -> Told:
    """A trace on two cores that slow each other as much as the other one works."""
    busy = [0.0, 0.0]
    for _ in range(ROUNDS_OF_SHARES):
        perfs = [found.quiet.beside(found.beside, share) for share in reversed(busy)]
        told = simulate(arm, trace, perfs, llm, link)
        busy = [min(share, 1.0) for share in told.busy]
    late = [found.start_s[tokens] for tokens in trace.prompt_tokens]
    told.first[:] = [a + b for a, b in zip(told.first, late, strict=True)]
    return told


def calibrate(
    url: str, arm: Arm, perf: MeasuredPerfModel, llm: LLM, link: Link, repeats: int
) -> Calibration:
    """What requests to an arm take beyond what is simulated, alone and beside another.

    To a first token that is the router, the connections, memory that the processor has to find
    again after a rest, and what a part of a prompt costs for the parts before it.
    """
    rng = random.Random(2)

    def prompt(tokens: int) -> list[int]:
        return [rng.randrange(100, llm.spec.vocab_size) for _ in range(tokens)]

    start_s, gaps, first = {}, list[float](), dict[int, float]()
    for tokens, output in (LONG, SHORT):
        took = []
        for _ in range(repeats):
            time.sleep(PAUSE_S)
            begin, times = time.perf_counter(), list[float]()
            ask(url, prompt(tokens), output, times)
            took.append(times[0] - begin)
            gaps += [b - a for a, b in itertools.pairwise(times)]
        told = simulate(arm, Trace.of([(0.0, tokens, output)]), [perf, perf], llm, link)
        first[tokens] = statistics.median(took)
        start_s[tokens] = first[tokens] - told.first[0]
    gap = statistics.mean(gaps)
    round_s = gap - statistics.mean(told.gaps)
    late, beside = [], list[float]()
    for _ in range(repeats):
        time.sleep(PAUSE_S)
        answer, times = list[float](), list[float]()
        words = (url, prompt(SHORT[0]), BESIDE, answer)
        other = threading.Thread(target=ask, args=words)
        other.start()
        while not answer:
            time.sleep(1e-3)
        begin = time.perf_counter()
        ask(url, prompt(LONG[0]), LONG[1], times)
        other.join()
        late.append(times[0] - begin)
        beside += [b - a for a, b in itertools.pairwise(answer) if a > begin and b < times[0]]
    factor = statistics.median(late) / first[LONG[0]]
    token_s = statistics.mean(beside) - gap
    return Calibration(
        start_s,
        round_s,
        perf.slowed(round_s),
        perf.slowed(round_s + token_s, factor),
        factor,
        token_s,
    )


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


def engine() -> LLM:
    """One engine, without a server."""
    return LLM(
        MODEL,
        dtype="float32",
        max_context=CONTEXT,
        max_batch=MAX_BATCH,
        max_batched_tokens=WHOLE,
        prefix_caching=False,
    )


def transfers(target: str, spec: ModelSpec, repeats: int) -> dict[str, list[float]]:
    """Seconds that keys and values of ``SENT`` tokens take to a token worker, by connector."""
    cache = PagedCache(spec, -(-SENT // 16), 16)
    for layer in range(spec.num_layers):
        for buffer in cache.buffers(layer):
            buffer.normal_()
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    parts = urlsplit(target)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    link.request("GET", "/split/info")
    known = json.loads(link.getresponse().read())["fingerprint"]
    rings = Rings("shm")
    took: dict[str, list[float]] = {"http": [], "shm": []}
    for i in range(repeats + 1):
        for name, times in took.items():
            body = {
                "id": f"{i:08x}",
                "prompt": [5] * SENT,
                "params": pack_params(params),
                "fingerprint": known,
            }
            link.request(
                "POST", "/split/tokens", json.dumps(body), {"Content-Type": "application/json"}
            )
            answer = link.getresponse()
            assert b"reserved" in answer.readline()
            ring = rings.take(target, lambda ticket: True) if name == "shm" else None
            sender = KVSender(cache, spec, SENT, layered=False, checksum=i == 0, ring=ring)
            begin = time.perf_counter()
            thread = threading.Thread(target=sender.finish, args=(list(range(cache.num_blocks)), 7))
            thread.start()
            send_records(sender, target, body["id"], None, ring)
            thread.join()
            if i:
                times.append(time.perf_counter() - begin)
            answer.read()
            if ring is not None:
                rings.give(ring)
    link.close()
    rings.close()
    return took


def main() -> int:
    """Run all arms at all rates."""
    args = arguments(__doc__, "serve_split")
    rates, seconds = ((0.35,), 6.0) if args.quick else (RATES, SECONDS)
    arms = ARMS[:2] if args.quick else ARMS
    middle = rates[len(rates) // 2]
    torch.set_num_threads(1)
    begin = time.perf_counter()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    llm = engine()
    perf = profile_engine(
        llm.engine,
        prompts=[32, 128, 640] if args.quick else [16, 32, 64, 128, 256, 640, 1000],
        batches=[1, 2, 4] if args.quick else [1, 2, 3, 4, 5, 6, 8, 16],
        repeats=2 if args.quick else 5,
        pause_s=0.0 if args.quick else PAUSE_S,
    )
    os.sched_setaffinity(0, before)
    token_ms = perf.iteration_s(0, 1, 32) * 1e3
    rows: list[dict[str, Any]] = []
    with clusters(arms) as up:
        for arm in arms:
            if not same_answers(up[arm.name].url, llm):
                print(f"{arm.name}: answers differ from those of one engine")
                return 1
        took = transfers(up["split"].workers[1], llm.spec, 3 if args.quick else 7)
        per_1k = {name: statistics.median(times) * 1000 / SENT for name, times in took.items()}
        print(f"keys and values of 1000 tokens, ms: { ({k: 1e3 * v for k, v in per_1k.items()}) }")
        kv_bytes = 2 * llm.spec.num_layers * llm.spec.kv_size * 4
        link = Link(bandwidth=1000 * kv_bytes / per_1k["shm"], latency_s=2e-3)
        repeats = 1 if args.quick else 5
        known = {
            arm.name: calibrate(up[arm.name].url, arm, perf, llm, link, repeats) for arm in arms
        }
        for name, one in known.items():
            print(
                f"{name}: a first token takes {one.start_s} s and a round {one.round_s * 1e3:.2f} "
                f"ms beyond the simulated; beside a worker at work prompts take "
                f"{one.prompt_factor:.2f} times as long and a round {one.token_s * 1e3:+.2f} ms",
                flush=True,
            )
        for rate in rates:
            for arm in [one for one in arms if one.name != "unchunked" or rate == middle]:
                trace = stream(seconds, rate, seed=3)
                found = play(up[arm.name].url, trace, llm.spec.vocab_size)
                simulated = predict(arm, trace, known[arm.name], llm, link)
                told = summary(trace, simulated.first, simulated.gaps)
                errors = {
                    name: told[name]["mean"] / found[name]["mean"] - 1
                    for name in (*JUDGED, "ttft_long_ms", "ttft_short_ms")
                }
                rows.append(
                    {
                        "arm": arm.name,
                        "rate": rate,
                        **found,
                        "predicted": told,
                        "busy": simulated.busy,
                        "error": errors,
                    }
                )
                print(told_row(rows[-1]), flush=True)
    goodput = goodputs(rows, token_ms, "measured")
    simulated_goodput = goodputs(rows, token_ms, "predicted")
    ratios: dict[str, dict[str, float]] = {arm.name: {} for arm in arms[1:]}
    for row in rows:
        if row["arm"] != "split":
            base = _row(rows, "split", row["rate"])["tbt_ms"]["p99"]
            ratios[row["arm"]][str(row["rate"])] = row["tbt_ms"]["p99"] / base
    loses = [
        rate
        for rate in rates
        if _row(rows, "split", rate)["ttft_ms"]["p50"] > _row(rows, "mixed", rate)["ttft_ms"]["p50"]
    ]
    missed = [abs(row["error"][name]) for row in rows for name in JUDGED]
    print(f"a token takes {token_ms:.0f} ms alone; goodput where p99 TBT is below: {goodput}")
    print(f"simulated: {simulated_goodput}")
    print(f"p99 TBT over split's: {ratios}; split has the later first token at rates {loses}")
    print(f"errors of means: worst {max(missed):.0%}, median {statistics.median(missed):.0%}")
    print(f"{time.perf_counter() - begin:.0f} s")
    results = {
        "rows": rows,
        "token_ms": token_ms,
        "goodput": goodput,
        "simulated_goodput": simulated_goodput,
        "p99_tbt_over_split": ratios,
        "later_first_token_at": loses,
        "worst_error": max(missed),
        "median_error": statistics.median(missed),
        "wanted_error": WANTED_ERROR,
        "calibration": {
            name: {
                "start_s": one.start_s,
                "round_s": one.round_s,
                "prompt_factor_beside": one.prompt_factor,
                "token_s_beside": one.token_s,
            }
            for name, one in known.items()
        },
        "transfer_s": took,
        "transfer_s_per_1000_tokens": per_1k,
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
        "transfer_tokens": SENT,
    }

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for arm, marker in zip(arms, "os^", strict=False):
            own = [row for row in rows if row["arm"] == arm.name]
            x = [row["rate"] for row in own]
            axes.plot(x, [row["tbt_ms"]["p99"] for row in own], f"-{marker}", label=arm.name)
            told = [row["predicted"]["tbt_ms"]["p99"] for row in own]
            axes.plot(x, told, f":{marker}", color="0.6", markersize=4)
        for limit in LIMITS:
            axes.axhline(limit * token_ms, color="0.8", linewidth=1)
        axes.set_xlabel("requests a second (dotted: simulated)")
        axes.set_ylabel("time between tokens, p99, ms")
        axes.set_yscale("log")
        axes.legend()

    save(args, results, config=config, plot=draw)
    return 0


def goodputs(rows: Sequence[dict[str, Any]], token_ms: float, of: str) -> dict[str, Any]:
    """Largest rate at which p99 between tokens is below each limit, by limit and arm."""

    def p99(row: dict[str, Any]) -> float:
        return float((row["predicted"] if of == "predicted" else row)["tbt_ms"]["p99"])

    found: dict[str, Any] = {}
    for limit in LIMITS:
        by_arm = found[f"{limit:g} token times"] = dict.fromkeys([row["arm"] for row in rows], 0.0)
        for row in rows:
            if p99(row) <= limit * token_ms:
                by_arm[row["arm"]] = max(by_arm[row["arm"]], row["rate"])
    return found


def told_row(row: dict[str, Any]) -> str:
    """One line of the report: what was measured, and what the simulator says of it."""
    tbt, told = row["tbt_ms"], row["predicted"]
    errors = ", ".join(f"{name[:-3]} {error:+.0%}" for name, error in row["error"].items())
    first = [f"{row[f'ttft_{kind}_ms']['mean']:.0f}" for kind in ("long", "short")]
    return (
        f"{row['arm']:10s} {row['rate']:4.2f}/s  "
        f"TBT mean {tbt['mean']:6.1f} p99 {tbt['p99']:7.1f} ms "
        f"(simulated {told['tbt_ms']['mean']:6.1f} {told['tbt_ms']['p99']:7.1f})  "
        f"TTFT mean long, short {' '.join(first)} ms   errors: {errors}"
    )


def _row(rows: Sequence[dict[str, Any]], arm: str, rate: float) -> dict[str, Any]:
    return next(row for row in rows if (row["arm"], row["rate"]) == (arm, rate))


if __name__ == "__main__":
    sys.exit(main())
