"""Recording a program and sending feedback back, beside trace-opt and textgrad.

    BENCH_TEXT_PYTHON=/path/to/python python -m benchmarks.text.bench_graph

Chains of 500 to 4,000 operations: a plain function (``chain``), ``y + 1`` (``operators``), and a
function that is also given the parameter each time (``shared``). Recorded, then feedback is sent
back and the minimal subgraph collected; of ours with the text of the program, which trace-opt
writes later. A tower of sums ``y = y + y``: how long the way back takes, and how many characters
arrive at the root. Importing: seconds of a new interpreter, less those of an empty one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.common import OURS, PEER, arguments, save
from benchmarks.text.beside import ask, has_peers, interpreter

import sharpen.text as st
from sharpen.text.listing import list_program

SHAPES = ("chain", "operators", "shared")
LENGTHS = (500, 1000, 2000, 4000)
ALONE = (10_000, 100_000)
DEPTHS = (4, 8, 12, 16, 18)
REPEATS = 5
IMPORTS = {
    "sharpen.text": "import sharpen.text as st; st.OptoPrime, st.TextGrad, st.Tape",
    "trace-opt": "from opto import trace; from opto.optimizers import OptoPrime",
    "textgrad": "import textgrad",
    "dspy": "import dspy",
}


@st.op
def combine(*parts: int) -> int:
    """The sum of its inputs plus one."""
    return sum(parts) + 1


def chain(shape: str, length: int) -> dict[str, float]:
    begin = time.perf_counter()
    shared = st.Parameter(0, "x")
    value: st.Node = shared
    for _ in range(length):
        if shape == "chain":
            value = combine(value)
        elif shape == "operators":
            value = value + 1
        else:
            value = combine(value, shared)
    recorded = time.perf_counter()
    value.backward("feedback")
    ((output, _),) = shared.pending
    graph = st.minimal_subgraph(output)
    back = time.perf_counter()
    list_program(graph)
    return {
        "record_s": recorded - begin,
        "backward_s": back - recorded,
        "list_s": time.perf_counter() - back,
    }


def tower(depth: int) -> dict[str, float]:
    root = st.Parameter("a", "root")
    value: st.Node = root
    for _ in range(depth):
        value = st.textsum([value, value])
    propagator = st.TextualPropagator(st.Scripted([]))
    begin = time.perf_counter()
    value.backward("shorter", propagator)
    merged = propagator.merge(root, root.messages)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "characters": sum(len(one.text) for one in merged)}


def imported(name: str, repeats: int) -> float | None:
    python = sys.executable if name == "sharpen.text" else interpreter()
    samples = []
    for _ in range(repeats):
        spent = []
        for code in ("pass", IMPORTS[name]):
            begin = time.perf_counter()
            done = subprocess.run([python, "-c", code], capture_output=True, check=False)
            spent.append(time.perf_counter() - begin)
            if done.returncode:
                return None
        samples.append(spent[1] - spent[0])
    return statistics.median(samples)


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in samples) for key in samples[0]}


def main() -> int:
    args = arguments(__doc__, "text_graph")
    repeats = 1 if args.quick else REPEATS
    with_peers = has_peers() and not args.quick
    lengths = LENGTHS[:2] if args.quick else LENGTHS
    chains = [(shape, length) for shape in SHAPES for length in lengths]
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append([chain(*one) for one in chains])
        if with_peers:
            theirs.append(ask("peer_trace.py", {"do": "chain", "chains": chains}))
    rows: list[dict[str, Any]] = []
    for place, (shape, length) in enumerate(chains):
        samples = [one[place] for one in ours]
        row: dict[str, Any] = {"shape": shape, "length": length, "sharpen": medians(samples)}
        if theirs:
            row["trace-opt"] = medians([one[place] for one in theirs])
            row["ratio"] = sum(row["trace-opt"].values()) / (
                row["sharpen"]["record_s"] + row["sharpen"]["backward_s"]
            )
        rows.append(row)
    towers = []
    depths = DEPTHS[:2] if args.quick else DEPTHS
    grown = ask("peer_textgrad.py", {"depths": depths}) if with_peers else []
    for place, depth in enumerate(depths):
        row = {"depth": depth, "sharpen": medians([tower(depth) for _ in range(repeats)])}
        if grown:
            row["textgrad"] = grown[place]
        towers.append(row)
    names = list(IMPORTS) if with_peers else ["sharpen.text"]
    results = {
        "chains": rows,
        "alone": [
            {"length": length, "sharpen": medians([chain("chain", length)])}
            for length in ALONE[: 1 if args.quick else 2]
        ],
        "towers": towers,
        "import_s": {name: imported(name, repeats) for name in names},
    }

    def plot(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for shape, style in zip(SHAPES, ("-", "--", ":"), strict=True):
            some = [row for row in rows if row["shape"] == shape]
            x = [row["length"] for row in some]
            for name, colour in (("sharpen", OURS), ("trace-opt", PEER)):
                if name in some[0]:
                    y = [row[name]["record_s"] + row[name]["backward_s"] for row in some]
                    left.plot(x, y, style, color=colour, label=f"{name}, {shape}")
        left.set(xlabel="operations", ylabel="s, record and backward", yscale="log")
        for name, colour in (("sharpen", OURS), ("textgrad", PEER)):
            if name in towers[0]:
                depths = [row["depth"] for row in towers]
                characters = [row[name]["characters"] for row in towers]
                right.plot(depths, characters, "o-", color=colour, label=name)
        right.set(xlabel="depth of sums", ylabel="characters of feedback", yscale="log")
        for axes in (left, right):
            axes.legend(frameon=False, fontsize=8)

    save(args, results, config={"repeats": repeats}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
