"""The numbers of the pages on search, from ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["SECTIONS"]

_NAMES = {"tsallis_inf": "Tsallis-INF", "binned": "Tsallis-INF in bins", "chebcb": "ChebCB"}


def relax(document: dict[str, Any], where: str) -> str:
    """Costs of learnt omegas over the best fixed one."""
    r, config = document["results"], document["config"]
    lines = [
        f"Mean SOR iterations over those of the best fixed omega in hindsight, after so many "
        f"systems; {config['seeds']} seeds ({where}):",
        "",
        f"| variance | policy | {' | '.join(f'{m:,}' for m in r['high']['steps'])} | us a round |",
        f"| --- | --- |{' --- |' * len(r['high']['steps'])} --- |",
    ]
    for variance in ("high", "low"):
        rows = r[variance]
        for key, name in _NAMES.items():
            cells = " | ".join(f"{x:.2f}" for x in rows[key]["over_best_fixed"])
            lines.append(f"| {variance} | {name} | {cells} | {rows[key]['us_a_round']:.0f} |")
        best = rows["instance_best"] / min(rows["fixed"].values())
        empty = " |" * len(rows["steps"])
        lines.append(f"| {variance} | the best omega of each system |{empty[:-2]} {best:.2f} | |")
    lines += [
        "",
        "SSOR-CG on 2,000 steps of the heat equation, iterations in all (and seconds, the time of "
        "choosing included):",
        "",
        f"| points a side | {' | '.join(next(iter(r['heat'].values())))} |",
        f"| --- |{' --- |' * len(next(iter(r['heat'].values())))}",
    ]
    for side, rows in r["heat"].items():
        cells = " | ".join(f"{x['iterations']:,} ({x['seconds']:.2f} s)" for x in rows.values())
        lines.append(f"| {side} | {cells} |")
    return "\n".join(lines)


def store(document: dict[str, Any], where: str) -> str:
    """Trials a second of the store, and how long resuming takes."""
    r = document["results"]
    alone, resume = r["alone"], r["resume"]
    shared = [f"{row['processes']} processes {row['trials_a_second']:,.0f}" for row in r["sqlite"]]
    lines = [
        f"A study of 6 real numbers, random search, an objective that costs nothing, one process, "
        f"one SQLite file: {alone['sharpen']['median']:.0f} trials a second, Optuna's "
        f"{alone['optuna']['median']:.0f} ({where}). Leases and results of an empty study, trials "
        f"a second on one SQLite file: {', '.join(shared)}",
    ]
    if r["postgresql"]:
        row = r["postgresql"]
        lines[0] += f"; in PostgreSQL, {row['processes']} processes {row['trials_a_second']:,.0f}"
    lost = sum(row["lost_or_double"] for row in (*r["sqlite"], *filter(None, [r["postgresql"]])))
    lines[0] += (
        f"; {lost or 'no'} trial was lost or numbered twice. A study of 100,000 trials is opened "
        f"and asked for the next in {resume['resume_s']:.1f} s and {resume['bytes'] / 1e6:.0f} MB."
    )
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "relax": ("search_relax", relax),
    "store": ("search_store", store),
}
