"""Programs in TextGrad's and in Trace's names, run by both and by ours, and a batch of slow calls.

    BENCH_TEXT_PYTHON=/path/to/python python -m benchmarks.text.textgrad_parity

The source of the programs is one (``textgrad_programs.py``, ``trace_programs.py``), the import
differs. A script answers: which calls are made and which values are set must be equal; where
textgrad does otherwise than it says, that is listed. Then one step on 100 examples with a model
that takes 50 ms a call: ours asks 16 at once, textgrad one after another. The shortest possible
time is that of four rounds of calls (answers, judgements, criticism of answers, criticism of the
prompt) by 16, and the rewrite.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from benchmarks.common import OURS, PEER, arguments, save
from benchmarks.text import textgrad_programs as programs
from benchmarks.text import trace_programs
from benchmarks.text.beside import ask, has_peers

from sharpen.core.lm import Scripted
from sharpen.core.lm.messages import text_of
from sharpen.text.compat import textgrad as tg
from sharpen.text.compat import trace

COUNT, DELAY_S, CONCURRENCY, REPEATS = 100, 0.05, 16, 5
DIFFERENCES = {
    "sum": "textgrad adds each criticism of a sum twice, so that it grows with 2^depth, and a loss"
    " within a sum is criticized by feedback that is an empty line instead of as a judgement;"
    " ours passes on what there is, once",
    "memory": "textgrad collects gradient_memory and never shows it; ours shows it",
    "momentum": "textgrad's momentum asks its engine with the prompt None; ours shows the values",
    "aggregate": "textgrad's aggregate reaches the last of its inputs only; ours reaches all",
    "order": "textgrad keeps criticism in sets hashed by address, so prompts differ from run to"
    " run; ours are the same byte for byte",
    "without criticism": "textgrad rewrites a variable that got no criticism; ours leaves it alone",
    "tags": "textgrad ends with an IndexError where a reply has no tags; ours asks once more, then"
    " leaves the value and reports it",
}


def trace_names() -> SimpleNamespace:
    """What ``trace_programs`` needs, of ours."""

    def llm(script: Callable[[list[str]], str]) -> Scripted:
        return Scripted(lambda request: script([text_of(one) for one in request.messages]))

    names = ("node", "bundle", "model", "ExecutionError", "OptoPrime")
    return SimpleNamespace(**{name: getattr(trace, name) for name in names}, llm=llm)


def main() -> int:
    args = arguments(__doc__, "text_textgrad_parity")
    count = 8 if args.quick else COUNT
    delay = 0.005 if args.quick else DELAY_S
    samples = []
    for _ in range(1 if args.quick else REPEATS):
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            samples.append(programs.batch(tg, count, delay, pool.map))
    ideal = delay * (4 * math.ceil(count / CONCURRENCY) + 1)
    seconds = [one["seconds"] for one in samples]
    results: dict[str, Any] = {
        "programs": programs.run(tg),
        "trace_programs": trace_programs.run(trace_names()),
        "differences": DIFFERENCES,
        "batch": {
            "examples": count,
            "call_s": delay,
            "concurrency": CONCURRENCY,
            "calls": samples[0]["calls"],
            "ideal_s": ideal,
            "sharpen_s": {"samples": seconds, "median": statistics.median(seconds)},
            "of_ideal": statistics.median(seconds) / ideal,
        },
    }
    if has_peers() and not args.quick:
        request = {"batch": {"count": count, "delay_s": delay}}
        theirs = ask("textgrad_programs.py", request)
        results["trace-opt"] = ask("trace_programs.py", {})
        results["textgrad"] = theirs["programs"]
        results["version"] = theirs["version"]
        results["batch"]["textgrad_s"] = theirs["batch"]["seconds"]
        results["batch"]["textgrad_calls"] = theirs["batch"]["calls"]
        results["batch"]["ratio"] = theirs["batch"]["seconds"] / statistics.median(seconds)

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        bars = {
            "shortest possible": (ideal, "#999999"),
            "Sharpen": (statistics.median(seconds), OURS),
        }
        if "textgrad_s" in results["batch"]:
            bars["textgrad"] = (results["batch"]["textgrad_s"], PEER)
        for name, (value, colour) in bars.items():
            axes.bar(name, value, color=colour)
            axes.annotate(f"{value:.2f} s", (name, value), ha="center", va="bottom")
        axes.set(ylabel=f"s, one step on {count} examples")

    save(args, results, config={"delay_s": delay, "count": count}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
