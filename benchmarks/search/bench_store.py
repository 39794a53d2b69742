"""The store of studies: trials a second, alone and shared, beside Optuna; and resuming.

Alone: a study of 6 real parameters, random search, an objective that costs nothing, in one process
on one SQLite file; Optuna with its random sampler in the same way, in turn. Shared: processes that
each take a lease, start and end trials on one SQLite file (8 processes) and one PostgreSQL server
(32 processes, where PostgreSQL is installed): every number once, none lost. Resuming: the time to
open a study of 100,000 trials and ask for the next.

    python -m benchmarks.search.bench_store [--json OUT] [--plot OUT] [--quick]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import sqlalchemy as sa
from benchmarks.common import arguments, draw_bars, ratio, save, summarize

import sharpen as sh
from sharpen.core.database import TRIAL, VALUE
from sharpen.core.store import open_store

SPACE = sh.Space({f"x{i}": sh.Float(0, 1) for i in range(6)})
PROBLEM = sh.problem(SPACE, lambda config: config["x0"] ** 2, minimize="v", name="p")
WORK = """
import sys
from sharpen.core.feedback import Feedback
from sharpen.core.store import open_store
store = open_store(sys.argv[1])
study = store.study("s").id
input()
while (claim := store.claim(study, limit=int(sys.argv[2]), lease_s=60)) is not None:
    store.start(claim, {"x": claim.number}, str(claim.number), "t")
    store.finish(claim, Feedback(objectives={"y": float(claim.number)}))
"""
RESUME = """
import json, sys, time
begin = time.perf_counter()
import sharpen as sh
from sharpen.core.metrics import peak_rss_bytes
space = sh.Space({f"x{i}": sh.Float(0, 1) for i in range(6)})
problem = sh.problem(space, lambda config: config["x0"] ** 2, minimize="v", name="p")
loaded = time.perf_counter()
study = sh.Study(problem, optimizer="random", store=sys.argv[1], budget=sh.Budget(trials=10**6))
trial = study.ask()
ended = time.perf_counter()
study.tell(trial, sh.Feedback(status="cancelled"))  # so that the next one asks anew
memory = peak_rss_bytes()
print(json.dumps({"resume_s": ended - loaded, "import_s": loaded - begin, "bytes": memory}))
"""


def ours(folder: Path, trials: int) -> float:
    """Trials a second of a study in one process."""
    path = folder / f"ours-{time.monotonic_ns()}.db"
    study = sh.Study(PROBLEM, optimizer="random", store=path, budget=sh.Budget(trials=trials))
    begin = time.perf_counter()
    study.run()
    return trials / (time.perf_counter() - begin)


def optunas(folder: Path, trials: int) -> float:
    """The same of Optuna's."""
    path = folder / f"optuna-{time.monotonic_ns()}.db"
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(storage=f"sqlite:///{path}", sampler=sampler)
    begin = time.perf_counter()
    study.optimize(lambda t: sum(t.suggest_float(f"x{i}", 0, 1) for i in range(6)), n_trials=trials)
    return trials / (time.perf_counter() - begin)


def shared(url: str, processes: int, trials: int) -> dict[str, Any]:
    """Trials a second of processes that share a store, and whether all is there."""
    store = open_store(url)
    study = store.create_study("s", space={}, objectives=[], constraints=[], seed=0, spec={}).id
    command = [sys.executable, "-c", WORK, url, str(trials)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(processes)]
    time.sleep(2 + 0.6 * processes)  # all have opened the store and wait for a line
    begin = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    codes = [worker.wait() for worker in workers]
    seconds = time.perf_counter() - begin
    found = store.trials(study)
    store.close()
    return {
        "processes": processes,
        "trials_a_second": trials / seconds,
        "errors": sum(code != 0 for code in codes),
        "lost_or_double": abs(len(found) - trials)
        + (len(found) - len({t.number for t in found}))
        + sum(t.state != "ok" for t in found),
    }


def resume(folder: Path, trials: int) -> dict[str, float]:
    """Seconds to open a large study and ask for its next trial, and the memory that takes."""
    path = folder / "large.db"
    study = sh.Study(PROBLEM, optimizer="random", store=path, budget=sh.Budget(trials=1))
    draws = np.random.default_rng(0).random((trials, 6))
    rows, values = [], []
    for number, row in enumerate(draws):
        config = {f"x{i}": float(v) for i, v in enumerate(row)}
        rows.append(
            {
                "id": number + 1,
                "study_id": study.id,
                "number": number,
                "state": "ok",
                "config": json.dumps(config),
                "config_hash": SPACE.digest(config),
                "origin": "random",
                "revision": number + 1,
                "started": 0.0,
                "finished": 1.0,
            }
        )
        values += [
            {"trial_id": number + 1, "kind": "objectives", "name": "v", "value": row[0] ** 2},
            {"trial_id": number + 1, "kind": "cost", "name": "seconds", "value": 1.0},
        ]
    with study.store._database.write() as connection:
        connection.execute(sa.insert(TRIAL), rows)
        connection.execute(sa.insert(VALUE), values)
    study.store.close()
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", RESUME, str(path)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return {key: sorted(row[key] for row in found)[1] for key in found[0]}


def postgres(processes: int, trials: int) -> dict[str, Any] | None:
    """The same in PostgreSQL; None where it is not installed."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from postgres import find_programs, running_server

    if find_programs() is None:
        return None
    with running_server() as server:
        return shared(server.new_database("bench"), processes, trials)


def main() -> None:
    args = arguments(__doc__, "search_store")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    repeats, few = (1, 30) if args.quick else (5, 300)
    rates: dict[str, list[float]] = {"sharpen": [], "optuna": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(repeats):
            rates["sharpen"].append(ours(folder, 5 * few))
            rates["optuna"].append(optunas(folder, few))
        found: dict[str, Any] = {
            "alone": {key: summarize(values) for key, values in rates.items()},
            "alone_ratio": ratio(rates["sharpen"], rates["optuna"]),
            "sqlite": [shared(str(folder / f"shared-{n}.db"), n, 10 * few) for n in (1, 8, 16)],
            "postgresql": postgres(4 if args.quick else 32, 10 * few),
            "resume": resume(folder, 1000 if args.quick else 100_000),
        }
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found, indent=1))

    def draw(figure: Any) -> None:
        series = {key: [row["median"]] for key, row in found["alone"].items()}
        axes = figure.subplots()
        draw_bars(axes, y_label="trials a second", groups=["one process"], series=series)

    save(args, found, config={"trials": 5 * few, "repeats": repeats}, plot=draw)


if __name__ == "__main__":
    main()
