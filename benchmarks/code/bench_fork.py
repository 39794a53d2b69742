"""Where the processor time of a warm sandbox's job goes, and what no such sandbox can go below.

python -m benchmarks.code.bench_fork [--quick]

A job is a fork of an interpreter that has loaded what programs import. To fork and to wait for a
process that ends at once is the least that this can take; parts of a job are added to that one
after another, in turns, in a process like the one that runs in a sandbox of tier 1
(``fork_parts.py``). A fork of an interpreter without any module is shown beside it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import OURS, arguments, save, summarize

import sharpen
from sharpen.core.sandbox.python import interpreter

PARTS = {
    "bare": "fork and wait, an interpreter without modules",
    "modules": "fork and wait, with the modules of a sandbox",
    "outside": "pipes, watching, reaping, an empty folder",
    "rights": "descriptors, Landlock, user, limits",
    "program": "decode, compile, call, encode",
}


def measured(rounds: int) -> dict[str, list[float]]:
    """[rounds] milliseconds up to each part."""
    with tempfile.TemporaryDirectory(prefix="bench-fork-") as scratch:
        line = [
            interpreter(with_packages=False).executable,
            *("-I", "-S", "-B", str(Path(__file__).with_name("fork_parts.py"))),
            *(str(Path(sharpen.__file__).parents[1]), scratch, str(rounds)),
        ]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def draw(figure: Any, results: dict[str, Any]) -> None:
    """The parts of a job, one after another."""
    axes = figure.subplots()
    names = list(results["part_ms"])
    left = 0.0
    for i, name in enumerate(names):
        width = results["part_ms"][name]
        axes.barh([PARTS[name]], [width], left=left, color=OURS, alpha=1 - 0.15 * i)
        left += width
    axes.axvline(results["summary"]["modules"]["median"], color="#555555", linestyle=":")
    axes.set_xlabel("ms of processor time")
    axes.set_title(f"a warm job: {results['times_the_least']:.1f} x a fork of it")
    axes.invert_yaxis()
    figure.set_size_inches(9, 3)


def main() -> None:
    args = arguments(__doc__, "code_fork")
    samples = measured(3 if args.quick else 15)
    middle = {name: median(some) for name, some in samples.items()}
    below = {"modules": 0.0, "outside": middle["modules"], "rights": middle["outside"]}
    below |= {"program": middle["rights"]}
    results = {
        "samples_ms": samples,
        "summary": {name: summarize(some) for name, some in samples.items()},
        "part_ms": {name: middle[name] - less for name, less in below.items()},
        "times_the_least": middle["program"] / middle["modules"],
    }
    save(args, results, plot=lambda figure: draw(figure, results))


if __name__ == "__main__":
    main()
