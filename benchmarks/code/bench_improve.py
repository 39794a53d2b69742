"""What ``sharpen improve`` makes of functions, by rules alone: gains, false gains, wrong patches.

    BENCH_SECONDS=3000 BENCH_PACKAGES=FOLDER python -m benchmarks.code.bench_improve

Sets of functions, in turns until the time is used up:

* ``slow``: slow solutions of our problems, with the problems' inputs;
* ``best``: solutions that are the best known: a gain that is claimed is measured again, with other
  inputs, and is false where it is not there;
* ``humaneval``: every eighth canonical solution, with its tests (many cannot be faster);
* ``traps``: functions whose obvious rewrite is wrong;
* ``algorithms``: every fourth function of the package (1.0.1) with type hints and a loop in a
  loop; inputs come from doctests and hints;
* ``pyperformance``: the functions in which its programs (1.14.0) spend their time; inputs come from
  runs of the programs.

The wheels of both, and of ``pyperf``, are unpacked to the folder ``BENCH_PACKAGES``.

A patch is wrong where it differs from the original on inputs that the tool has not seen: other
seeds of the problems' generators, or other values like those it has seen.
"""

from __future__ import annotations

import ast
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.code.traps import TRAPS
from benchmarks.common import OURS, PEER, arguments, save

from sharpen.code import ImproveConfig, ImproveResult, improve
from sharpen.code.improver.corpus import made_up
from sharpen.code.improver.equality import Equality
from sharpen.code.improver.observer import Watcher
from sharpen.code.improver.reference import BaselineError, record_baseline
from sharpen.code.inputs import Input
from sharpen.code.measure import compare
from sharpen.code.problems import load_problems
from sharpen.core.errors import SharpenError

SEED, HIDDEN_SEED = 1, 20_261
SETTINGS = {"levels": 2, "budget_s": 30.0, "propose": ("rewrite",)}
EACH = {"humaneval": 8, "algorithms": 4}  # every so many of a set, so that all kinds are in it
PYPERFORMANCE = (
    *("bpe_tokeniser:bpe_train", "chaos:Spline.__call__", "chaos:GVector.linear_combination"),
    *("decimal_factorial:factorial", "decimal_pi:pi_decimal", "fannkuch:fannkuch"),
    *("float:benchmark", "float:Point.normalize", "gc_traversal:create_recursive_containers"),
    *("generators:tree", "generators:Tree.__iter__", "go:Square.find", "go:Board.useful"),
    *("mdp:Battle.evaluate", "meteor_contest:solve", "nbody:advance", "nqueens:permutations"),
    *("nqueens:n_queens", "pidigits:extract", "pidigits:compose", "pyflate:decode_huffman_block"),
    *("pyflate:HuffmanTable.find_next_symbol", "raytrace:Vector.dot", "raytrace:Point.__sub__"),
    *("regex_dna:random_fasta", "richards:schedule", "richards:Task.runTask"),
    *("scimark:FFT_transform_internal", "scimark:LU_factor", "spectral_norm:eval_A"),
    *("spectral_norm:part_A_times_u", "barnes_hut:QuadTree.calculate_force"),
)
"""By profile (``find_hot``): of each program that runs with the wheel and the standard library
alone, the one or two functions, no coroutines, with a tenth or more of its time in themselves."""
_BUILTIN = frozenset(
    {"int", "float", "str", "bool", "bytes", "list", "tuple", "dict", "set", "None"}
)
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Case:
    """A function to improve."""

    group: str
    name: str
    file: Path
    entry: str
    settings: dict[str, Any] = field(default_factory=dict)
    known: list[Input] | None = None
    hidden: list[Input] | None = None
    timed: list[Input] | None = None


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "program.py").write_text(text)
    return path / "program.py"


def calls(rows: list[tuple[Any, ...]]) -> list[Input]:
    return [(tuple(row), {}) for row in rows]


def own(folder: Path, group: str) -> Iterator[Case]:
    for problem in load_problems("own"):
        source = problem.slow if group == "slow" else problem.reference
        if source is None or (group == "best" and problem.slow is not None):
            continue
        top = len(problem.levels) - 1
        known = [*problem.inputs(0, seed=SEED), *problem.inputs(1, count=1, seed=SEED)]
        hidden = [
            one
            for level in range(top)
            for one in problem.inputs(level, count=4, seed=HIDDEN_SEED + level)
        ]
        yield Case(
            group,
            problem.name,
            written(folder / group, problem.name, source),
            problem.entry,
            known=calls(known),
            hidden=calls(hidden),
            timed=calls(problem.inputs(top, count=1, seed=HIDDEN_SEED)),
        )


def humaneval(folder: Path) -> Iterator[Case]:
    for problem in load_problems("humaneval")[:: EACH["humaneval"]]:
        name = problem.name.replace("/", "_")
        file = written(folder / "humaneval", name, problem.reference)
        (file.parent / "test_program.py").write_text(
            f"from program import {problem.entry} as candidate\n{problem.tests}\n"
            "def test():\n    check(candidate)\n"
        )
        yield Case("humaneval", problem.name, file, problem.entry)


def traps(folder: Path) -> Iterator[Case]:
    for number, trap in enumerate(TRAPS):
        file = written(folder / "traps", str(number), trap.source)
        yield Case(
            "traps", trap.name, file, "f", known=calls(trap.known), hidden=calls(trap.hidden)
        )


def algorithms(packages: Path | None) -> Iterator[Case]:
    if packages is None:
        return
    for name in loops_in_loops(packages / "algorithms")[:: EACH["algorithms"]]:
        file, _, entry = name.partition(":")
        yield Case("algorithms", name, packages / "algorithms" / file, entry)


def loops_in_loops(folder: Path) -> list[str]:
    """Functions where time may be lost: loops in loops, and hints of built-in classes alone."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            hints = [one.annotation for one in given]
            names = {n.id for h in hints if h for n in ast.walk(h) if isinstance(n, ast.Name)}
            loops = [n for n in ast.walk(node) if isinstance(n, _LOOPS)]
            inside = any(
                n is not loop and isinstance(n, _LOOPS) for loop in loops for n in ast.walk(loop)
            )
            if hints and all(hints) and names <= _BUILTIN and inside:
                found.append(f"{file.relative_to(folder)}:{node.name}")
    return found


def pyperformance(packages: Path | None) -> Iterator[Case]:
    if packages is None:
        return
    for name in PYPERFORMANCE:
        program, _, entry = name.partition(":")
        data = packages / "pyperformance" / "data-files" / "benchmarks"
        file = data / f"bm_{program}" / "run_benchmark.py"
        command = f"python {file} --worker --loops=1 --values=1 --warmups=0"
        settings = {"tests": command, "tests_limit_s": 120.0}
        yield Case("pyperformance", name, file, entry, settings=settings)


def hidden_of(case: Case, result: ImproveResult) -> list[Input]:
    """Inputs that the tool has not seen."""
    if case.hidden is not None:
        return case.hidden
    assert result.proof is not None
    return made_up(result.proof.location, result.proof.inputs[:200], 400, HIDDEN_SEED)


def is_wrong(case: Case, result: ImproveResult) -> str:
    """What differs on hidden inputs; empty where nothing does."""
    assert result.proof is not None
    target = result.proof.location
    equality = Equality()
    with Watcher(target.program(), 0) as one, Watcher(target.program(), 1) as two:
        try:
            baseline = record_baseline(hidden_of(case, result), one, two, equality, judged=False)
        except BaselineError as error:
            return "" if "no input can be used" in str(error) else f"the original: {error}"
    with Watcher(target.program(result.text)) as other:
        refuted = baseline.refute(other, equality)
    return "" if refuted is None else f"input {refuted.index}: {refuted.difference}"


def tried(case: Case, changes: dict[str, Any]) -> dict[str, Any]:
    begin = time.monotonic()
    row: dict[str, Any] = {"set": case.group, "name": case.name}
    tests = case.settings.get("tests", None if case.group == "humaneval" else "none")
    try:
        config = ImproveConfig(**{**SETTINGS, **case.settings, **changes, "tests": tests})
        result = improve(case.file, case.entry, inputs=case.known, config=config)
    except SharpenError as error:
        return (
            row
            | {"error": _placeless(f"{type(error).__name__}: {error}", case)[:400]}
            | {"improved": False}
            | {"seconds": time.monotonic() - begin}
        )
    row |= {
        "improved": result.improved,
        "speedup": result.speedup,
        "interval": list(result.interval),
        "risk": result.risk,
        "steps": next((list(a.steps) for a in result.attempts if a.text == result.text), []),
        "tried": [f"{one.verdict}: {', '.join(one.steps)}" for one in result.attempts],
        "why": result.why,
        "seconds": time.monotonic() - begin,
    }
    if result.improved:
        row["wrong"] = is_wrong(case, result)
        row["patch"] = result.patch
        if case.timed is not None and not row["wrong"]:
            row["hidden_speedup"] = hidden_speedup(case, result)
    return row


def _placeless(text: str, case: Case) -> str:
    """A text without the folders of this machine."""
    return text.replace(sys.executable, "python").replace(str(case.file.parent), case.name)


def hidden_speedup(case: Case, result: ImproveResult) -> list[float] | None:
    """The gain with the problem's own largest inputs: estimate and interval."""
    assert result.proof is not None
    assert case.timed is not None
    target = result.proof.location
    try:
        found = compare(target.program(), target.program(result.text), case.timed, budget_s=2)
    except SharpenError:
        return None
    return [found.ratio, found.low, found.high]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group in dict.fromkeys(row["set"] for row in rows):
        some = [row for row in rows if row["set"] == group]
        usable = [row for row in some if "error" not in row]
        gains = [row["speedup"] if row["improved"] else 1.0 for row in usable]
        false = [row for row in usable if row["improved"] and not holds(row)]
        found[group] = {
            "functions": len(some),
            "refused": len(some) - len(usable),
            "improved": sum(row["improved"] for row in usable),
            "share_1.1": share(gains, 1.1),
            "share_2": share(gains, 2.0),
            "geometric_mean": math.exp(statistics.fmean(map(math.log, gains))) if gains else None,
            "wrong": sum(bool(row.get("wrong")) for row in usable),
            "false": len(false) if group == "best" else None,
            "median_seconds": statistics.median(row["seconds"] for row in some),
            "longest_seconds": max(row["seconds"] for row in some),
        }
    return found


def holds(row: dict[str, Any]) -> bool:
    """Whether a claimed gain was there again with other inputs."""
    again = row.get("hidden_speedup")
    return again is not None and again[1] >= 1.05


def share(gains: list[float], least: float) -> float | None:
    return sum(gain >= least for gain in gains) / len(gains) if gains else None


def plot_of(rows: list[dict[str, Any]]) -> Callable[[Any], None]:
    def plot(figure: Any) -> None:
        axes = figure.subplots()
        groups = list(dict.fromkeys(row["set"] for row in rows))
        for i, group in enumerate(groups):
            gains = sorted(
                (row["speedup"] if row["improved"] else 1.0)
                for row in rows
                if row["set"] == group and "error" not in row
            )
            if not gains:
                continue
            shares = [100 * (k + 1) / len(gains) for k in range(len(gains))]
            colour = (OURS, PEER, "#2c8a4b", "#c0392b", "#555555", "#7a3fa0")[i % 6]
            axes.step(gains, shares, where="post", color=colour, label=f"{group} ({len(gains)})")
        axes.set_xscale("log")
        axes.set_xlabel("speed-up, times")
        axes.set_ylabel("functions with at most that, %")
        axes.legend(frameon=False)

    return plot


def main() -> int:
    args = arguments(__doc__, "code_improve")
    seconds = float(os.environ.get("BENCH_SECONDS", "3000"))
    packages = None
    if "BENCH_PACKAGES" in os.environ:
        packages = Path(os.environ["BENCH_PACKAGES"]).resolve()
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (before, str(packages))))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-improve-") as made:
        folder = Path(made)
        slow = list(own(folder, "slow"))
        sets: list[Iterable[Case]] = [
            slow[::2],
            own(folder, "best"),
            slow[1::2],
            humaneval(folder),
            traps(folder),
            algorithms(packages),
            pyperformance(packages),
        ]
        rows: list[dict[str, Any]] = []
        turns = itertools.zip_longest(*sets)
        for case in filter(None, itertools.chain.from_iterable(turns)):
            if time.monotonic() - begin > seconds:
                break
            if args.quick and len(rows) >= 2:
                break
            row = tried(case, {"levels": 1} if args.quick else {})
            rows.append(row)
            said = (
                f"{row['speedup']:.3g} x" if row["improved"] else row.get("error", row.get("why"))
            )
            print(f"{case.group} {case.name}: {str(said)[:120]}", file=sys.stderr, flush=True)
            if row.get("wrong"):
                print(f"WRONG {row['wrong']}\n{row['patch']}", file=sys.stderr, flush=True)
    results = {"summary": summary(rows), "rows": rows, "seconds": time.monotonic() - begin}
    config = {**SETTINGS, "seconds": seconds, "seeds": [SEED, HIDDEN_SEED]}
    save(args, results, config=config, plot=plot_of(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
