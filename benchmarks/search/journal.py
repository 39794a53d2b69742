"""A benchmark's finished runs, one JSON document a line, so that it can be stopped and resumed.

A run holds the ``version`` of its method. A method that behaves otherwise than before gets a higher
one in :data:`benchmarks.search.players.VERSIONS`, and its old runs no longer count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.search.players import VERSIONS

__all__ = ["Key", "Run", "alternating", "play_missing", "read"]

Run = dict[str, Any]
Key = tuple[str, str, int, int]


def _key_of(run: Run) -> Key:
    """Task, method, seed and evaluations: what is not run twice."""
    return run["task"], run["method"], run["seed"], run["evaluations"]


def _version_of(method: str) -> int:
    return VERSIONS.get(method, 1)


def read(journal: Path | None) -> dict[Key, Run]:
    """Finished runs; a line cut short by a stop, or of another version, is left out."""
    found = {}
    for line in journal.read_text().splitlines() if journal and journal.exists() else ():
        try:
            run = json.loads(line)
        except json.JSONDecodeError:
            continue
        if run.get("version", 1) == _version_of(run["method"]):
            found[_key_of(run)] = run
    return found


def _add(journal: Path | None, run: Run) -> None:
    """Append a finished run, on a line of its own even behind one that was cut short."""
    if journal is not None:
        before = journal.read_bytes() if journal.exists() else b""
        is_cut = bool(before) and not before.endswith(b"\n")
        with journal.open("a") as file:
            file.write("\n" * is_cut + json.dumps(run) + "\n")


def play_missing(
    journal: Path | None, keys: Iterable[Key], play: Callable[..., Run] | None
) -> list[Run]:
    """The runs of these keys: those of the journal, and the others played and added to it.

    Args:
        journal: the file, or None.
        keys: which runs, in the order in which they are played.
        play: makes a run of a key's parts; None leaves out what the journal lacks.
    """
    known, runs = read(journal), []
    for key in keys:
        if key not in known:
            if play is None:
                continue
            known[key] = {**play(*key), "version": _version_of(key[1])}
            _add(journal, known[key])
        runs.append(known[key])
    return runs


def alternating(
    tasks: list[str], methods: list[str], seeds: Iterable[int], evaluations: int
) -> Iterable[Key]:
    """Keys by seed, then by task; methods begin with another one at each seed."""
    for seed in seeds:
        turn = seed % len(methods)
        for task in tasks:
            for method in methods[turn:] + methods[:turn]:
                yield task, method, seed, evaluations
