"""Does a benchmark of efficiency rank programs right on a loaded machine?

    BENCH_ENAMEL_CSV=enamel.csv BENCH_ENAM=FOLDER python -m benchmarks.code.bench_enamel

Two processes keep the machine busy. On each of ENAMEL's problems the expert's reference and the
canonical solution of HumanEval are evaluated, with our evaluator and, where the variable
``BENCH_ENAM`` names the folder of the package ``enam`` 0.2.0, with ENAMEL's own, in turn. A
reference against itself should get 1.00, and rank above the canonical solution wherever it is
faster. Where that is so is measured apart: on one input of the largest size, in turn, the median of
three.

A run that was ended goes on where it was. The file ``enamel.csv`` is that of the repository
q-rz/enamel; numbers are kept of it and no text.
With ``--quick`` some problems of our own stand in its place, and instructions are counted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.code.bench_measure import busy
from benchmarks.common import OURS, PEER, arguments, save

from sharpen.code.evaluate import EvalConfig, evaluate, read_samples
from sharpen.code.metrics import bootstrap
from sharpen.code.problems import Problem, load_problems
from sharpen.core.sandbox import Job, Limits, SandboxPool

BUSY = 2
MOST_S = 3.0


class Peer:
    """enam in a process of its own; without its folder there is none."""

    def __init__(self, data: str) -> None:
        self.data = data
        folder = os.environ.get("BENCH_ENAM")
        self.process = None
        if folder is not None:
            root = Path(__file__).resolve().parent.parent.parent
            path = os.pathsep.join([folder, str(root)])
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.code.enam_checks"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
            )

    def ask(self, problem: Problem, programs: list[str]) -> dict[str, Any] | None:
        """What it says of some programs."""
        if self.process is None:
            return None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # Without the prompt, which it puts before the code.
        codes = [program.removeprefix(problem.prompt) for program in programs]
        request = {"data": self.data, "problem": problem.number, "codes": codes}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"enam ended on {problem.name}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def head_room(problem: Problem, programs: list[str], pool: SandboxPool) -> float:
    """How many times faster the first of two programs is on one largest input."""
    args = problem.inputs(len(problem.levels) - 1, count=1, pool=pool)
    job = Job(source="", entry=problem.entry, inputs=args, clock="cpu")
    job = replace(job, limits=Limits(cpu_s=MOST_S, memory_bytes=4 << 30, result_bytes=256 << 20))
    times: list[list[float]] = [[], []]
    for _ in range(3):
        for one, program in zip(times, programs, strict=True):
            if one and one[0] == float("inf"):
                continue
            result = pool.run(replace(job, source=program))
            one.append(result.times[0] if result.ok else float("inf"))
    return statistics.median(times[1]) / statistics.median(times[0])


def measure(
    problems: list[Problem], config: EvalConfig, peer: Peer | None, kept: Path | None
) -> dict[str, Any]:
    """What came of each problem; those in the file ``kept`` are not measured again."""
    canonical = read_samples("canonical", problems)
    rows: dict[str, Any] = {}
    if kept is not None and kept.exists():
        rows = dict(json.loads(line) for line in kept.read_text().splitlines())
    with SandboxPool(1) as pool:
        for problem in problems:
            if problem.name in rows:
                continue
            programs = [problem.reference, canonical[problem.name][0]]
            begin = time.perf_counter()
            report = evaluate([problem], {problem.name: programs}, config)
            seconds = time.perf_counter() - begin
            found = report["problems"][problem.name]
            row = {
                "faster": min(head_room(problem, programs, pool), 1e6),
                "sharpen": {
                    "passed": found["passed"],
                    "efficiency": found["efficiency"],
                    "suspicious": sum(map(bool, found["suspicious"])),
                    "seconds": seconds,
                },
            }
            theirs = peer.ask(problem, programs) if peer is not None else None
            if theirs is not None:
                row["enam"] = theirs
            rows[problem.name] = row
            if kept is not None:
                with kept.open("a") as file:
                    file.write(json.dumps([problem.name, row]) + "\n")
            print(problem.name, json.dumps(row), file=sys.stderr, flush=True)
    return rows


def conclude(rows: dict[str, Any]) -> dict[str, Any]:
    """What each evaluator says over all problems."""
    found: dict[str, Any] = {
        "problems": len(rows),
        "faster": sum(row["faster"] >= 1.1 for row in rows.values()),
    }
    for name in ("sharpen", "enam"):
        some = [row for row in rows.values() if name in row]
        if not some:
            continue
        one: dict[str, Any] = {}
        for i, which in enumerate(("reference", "canonical")):
            estimate = bootstrap([row[name]["efficiency"][i] for row in some])
            one[which] = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
            one[f"{which}_passed"] = sum(row[name]["passed"][i] for row in some)
        differ = [row for row in some if row["faster"] >= 1.1]
        one["ranked_right"] = sum(
            row[name]["efficiency"][0] > row[name]["efficiency"][1] for row in differ
        )
        one["far_off"] = sum(abs(row[name]["efficiency"][0] - 1) > 0.1 for row in some)
        one["seconds"] = sum(row[name]["seconds"] for row in some)
        found[name] = one
    return found


def main() -> int:
    args = arguments(__doc__, "code_enamel")
    peer = None
    kept = None if args.quick else args.json.with_suffix(".rows.jsonl")
    if args.quick:
        names = ("climb_stairs", "grid_paths", "coin_ways")
        problems = [p for p in load_problems("own") if p.name in names]
        config = EvalConfig(clock="opcodes")
    else:
        data = os.environ.get("BENCH_ENAMEL_CSV")
        if data is None:
            raise SystemExit("set BENCH_ENAMEL_CSV to the file enamel.csv of q-rz/enamel")
        problems, config = load_problems("enamel", data=data), EvalConfig()
        random.Random(0).shuffle(problems)  # what a run that is ended early has seen is a sample
        peer = Peer(data)
    count = 0 if args.quick else BUSY
    workers = [
        multiprocessing.get_context("spawn").Process(target=busy, daemon=True) for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        rows = measure(problems, config, peer, kept)
    finally:
        for worker in workers:
            worker.kill()
        if peer is not None:
            peer.close()
    if kept is not None:
        kept.unlink()
    results = {"summary": conclude(rows), "problems": rows}

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for name, colour in (("sharpen", OURS), ("enam", PEER)):
            values = sorted(row[name]["efficiency"][0] for row in rows.values() if name in row)
            if values:
                axes.plot(values, range(1, len(values) + 1), color=colour, label=name)
        axes.axvline(1, color="0.7", linewidth=0.8)
        axes.set_xlabel("efficiency of the reference against itself")
        axes.set_ylabel("problems up to it")
        axes.legend(frameon=False)

    save(args, results, config={"busy": count, "clock": config.clock}, plot=plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
