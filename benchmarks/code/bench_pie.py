"""Do evaluations of faster programs find what is faster, and nothing else, on a loaded machine?

    python -m benchmarks.code.bench_pie

Programs that read standard input are made of our own problems: one reads the size and the seed of
its input, makes it, solves it and prints a digest. Two processes keep the machine busy.

- ``copies``: the slow program against four copies of itself: whatever is called at least 1.1 times
  as fast is wrong. Beside it, PIE's first evaluator as released: wall time, one program after the
  other, the mean of the runs that count, the fastest of the right ones.
- ``pairs``: the slow program against the reference, by both ways.
- ``retrieval``: for each slow program with other names, whether its own pair is found first.
- ``loop``: Effi-Code's loop on the problems, a script answering with the slow solution, then the
  reference: which of the two it keeps, and what a problem takes.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.code.bench_measure import busy
from benchmarks.common import OURS, PEER, arguments, save

from sharpen.code.pie import PieConfig, pie_eval
from sharpen.code.problems import Problem, load_problems
from sharpen.code.training_data import Pair, Retriever, SoapConfig, make_dataset
from sharpen.core.lm import LM, Scripted

BUSY, COPIES, LEVEL = 2, 3, 3
CONFIG = PieConfig(num_trials=5, ignore_first_k=1)
_MAIN = """

def _read():
    import hashlib
    names = {{}}
    exec({generator!r}, names)
    size, level, seed, index = map(int, input().split())
    result = {entry}(*names["generate"](size, level, index, seed))
    print(hashlib.sha256(repr(result).encode()).hexdigest())

_read()
"""


def program(problem: Problem, solution: str) -> str:
    """A solution as a program that reads standard input."""
    return solution + _MAIN.format(generator=problem.generator, entry=problem.entry)


def written(problems: list[Problem], folder: Path) -> None:
    """Tests of each problem, in PIE's layout."""
    for problem in problems:
        place = folder / problem.name
        place.mkdir(parents=True)
        for i in range(2):
            text = f"{problem.levels[LEVEL]} {LEVEL} {problem.seed_of(LEVEL, i)} {i}\n"
            (place / f"input.{i}.txt").write_text(text)
            line = [sys.executable, "-I", "-S", "-c", program(problem, problem.reference)]
            done = subprocess.run(line, input=text, capture_output=True, text=True, check=True)
            (place / f"output.{i}.txt").write_text(done.stdout)


def evaluated(problems: list[Problem], made: dict[str, list[str]], folder: Path) -> dict[str, Any]:
    """Our report on some programs of each problem."""
    rows = [
        {
            "submission_id_v0": p.name,
            "problem_id": p.name,
            "input": program(p, p.slow or ""),
            "target": program(p, p.reference),
            "generated_answers": made[p.name],
        }
        for p in problems
    ]
    path = folder.parent / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pie_eval(path, None, folder, CONFIG)


def as_released(problems: list[Problem], made: dict[str, list[str]], folder: Path) -> list[float]:
    """Speed-ups by wall time, one program after another, without isolation."""
    found = []
    for problem in problems:
        slow, *others = (
            _mean_s(code, folder / problem.name)
            for code in (program(problem, problem.slow or ""), *made[problem.name])
        )
        found.append(max(1.0, slow / min(others)))
    return found


def _mean_s(code: str, tests: Path) -> float:
    times = []
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(code)
        file.flush()
        for path in sorted(tests.glob("input.*.txt")):
            for trial in range(CONFIG.num_trials):
                with path.open() as given:
                    begin = time.perf_counter()
                    line = [sys.executable, file.name]
                    subprocess.run(line, stdin=given, capture_output=True, check=True)
                    if trial >= CONFIG.ignore_first_k:
                        times.append(time.perf_counter() - begin)
    return statistics.fmean(times)


def renamed(text: str) -> str:
    """Other names for what a function names itself."""
    words = sorted(set(re.findall(r"\b[a-z_]\w{0,15}(?= = | in |, |\)|\])", text)))
    for i, word in enumerate(words):
        if f"def {word}" not in text and f".{word}" not in text:
            text = re.sub(rf"\b{word}\b(?!\()", f"v{i}", text)
    return text


def retrieval(problems: list[Problem]) -> dict[str, Any]:
    """How often a program's own pair is the most like it once its names are others."""
    pairs = [Pair(slow=p.slow or "", fast=p.reference, problem=p.name) for p in problems]
    retriever = Retriever(pairs)
    first = within = 0
    for problem in problems:
        near = retriever.nearest(renamed(problem.slow or "") + "\n", k=4)
        first += near[-1].problem == problem.name
        within += any(pair.problem == problem.name for pair in near)
    return {"programs": len(problems), "first": first, "within_4": within}


def loop(problems: list[Problem], folder: Path) -> dict[str, Any]:
    """What the loop keeps."""
    replies: list[str] = []
    for problem in problems:
        replies += [f"```python\n{code}\n```" for code in (problem.slow, problem.reference)]
    out = folder / "rows.jsonl"
    begin = time.perf_counter()
    found = make_dataset(problems, LM(Scripted(replies)), out, SoapConfig(rounds=2))
    seconds = time.perf_counter() - begin
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    gains = [row["et_before"] / row["et_after"] for row in rows]
    return {
        "problems": len(problems),
        "rows": found["rows"],
        "dropped": found["dropped"],
        "faster": found["faster"],
        "median_speedup": statistics.median(gains) if gains else None,
        "seconds_a_problem": seconds / len(problems),
    }


def summary(speedups: list[float]) -> dict[str, Any]:
    """Of one way."""
    return {
        "programs": len(speedups),
        "optimized": sum(one >= 1.1 for one in speedups),
        "median": statistics.median(speedups),
        "largest": max(speedups),
        "speedups": speedups,
    }


def main() -> int:
    args = arguments(__doc__, "code_pie")
    problems = [p for p in load_problems("own") if p.slow is not None]
    few = problems[:: 60 if args.quick else 9]
    beside = 0 if args.quick else BUSY
    workers = [multiprocessing.Process(target=busy, daemon=True) for _ in range(beside)]
    for worker in workers:
        worker.start()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tests"
        written(few, folder)
        results: dict[str, Any] = {}
        copies = {p.name: [program(p, p.slow or "")] * (1 if args.quick else COPIES) for p in few}
        pairs = {p.name: [program(p, p.reference)] for p in few}
        for name, made in (("copies", copies), ("pairs", pairs)):
            rows = evaluated(few, made, folder)["rows"]
            ours = [_speedup(row) for row in rows]
            theirs = as_released(few, made, folder)
            results[name] = {"ours": summary(ours), "as released": summary(theirs)}
        for worker in workers:
            worker.kill()
        results["retrieval"] = retrieval(problems)
        results["loop"] = loop(few, Path(place))

    def plot(figure: Any) -> None:
        axes = figure.subplots(1, 2)
        for axis, name in zip(axes, ("copies", "pairs"), strict=True):
            for way, colour in (("as released", PEER), ("ours", OURS)):
                some = sorted(results[name][way]["speedups"])
                axis.plot(some, colour, label=way)
            axis.axhline(1.1, color="#7a7a7a", linewidth=0.5)
            axis.set(title=name, yscale="log", ylabel="speed-up", xlabel="programs, in order")
        axes[0].legend(frameon=False)

    config = {"busy": beside, "copies": COPIES, "trials": CONFIG.num_trials}
    save(args, results, config=config, plot=plot)
    return 0


def _speedup(row: dict[str, Any]) -> float:
    times = [v for k, v in row.items() if k.startswith("generated") and k.endswith("_agg_runtime")]
    right = [one for one in times if one is not None]
    return max(1.0, row["input_agg_runtime"] / min(right)) if right else 1.0


if __name__ == "__main__":
    sys.exit(main())
