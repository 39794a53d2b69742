"""The benchmarks of what `auto` chooses between, and of what a suggestion takes."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.search import bench_auto, choice_sections

from sharpen.search.pareto import hypervolume


@pytest.mark.parametrize("name", ["zdt1", "zdt2", "mixed"])
def test_the_volume_of_a_front_of_two_objectives_is_what_its_points_come_to(name: str) -> None:
    problem = bench_auto.FRONTS[name](3)
    # Among many configurations drawn at random none is beyond the front, and with all but the first
    # parameter at its best the points are on it.
    rng = np.random.default_rng(0)
    drawn = [problem.space.draw(rng) for _ in range(300)]
    power = 2.0 if name == "zdt2" else 0.5
    for first, second in (problem.values(config) for config in drawn):
        assert second > 1 - first**power
    first = np.linspace(0, 1, 4001)
    front = np.stack([first, 1 - first**power], axis=1)
    reached = hypervolume(front, np.array(problem.reference))
    assert reached == pytest.approx(problem.volume, rel=1e-3)
    assert reached < problem.volume


def test_the_volume_of_a_front_of_three_objectives_is_that_beyond_a_sphere() -> None:
    problem = bench_auto.dtlz2(1)
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert np.linalg.norm(problem.values(problem.space.draw(rng))) >= 1
    angles = np.linspace(0, math.pi / 2, 25)
    a, b = (grid.ravel() for grid in np.meshgrid(angles, angles))
    sphere = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=1)
    reached = hypervolume(np.unique(sphere, axis=0), np.array(problem.reference))
    assert 0.95 * problem.volume < reached < problem.volume


@pytest.mark.parametrize("name", bench_auto.UNDER)
def test_a_regret_is_zero_at_its_least(name: str) -> None:
    problem = bench_auto.UNDER[name](2)
    for load in (0.05, 0.4, 0.9):
        drawn = [problem.regret(config, load) for config in problem.space.grid(101)]
        assert min(drawn) == pytest.approx(0, abs=1e-4)
        assert min(drawn) >= 0


def _run(task: str, method: str, seed: int, value: float) -> dict[str, Any]:
    found = {"100": value} if task in bench_auto.FRONTS else {"51-100": value}
    return {"task": task, "method": method, "seed": seed, "found": found, "seconds": 0.01}


def test_the_section_marks_who_is_ahead_of_all_others() -> None:
    runs = []
    for seed in range(10):
        runs += [_run("zdt1", m, seed, v + seed / 100) for m, v in (("ehvi", 0.1), ("tpe", 0.5))]
        runs.append(_run("zdt1", "nsga2", seed, 0.9))
        runs += [_run("numbers", m, seed, seed / 100) for m in bench_auto.CONTEXTS]
    summary = bench_auto.summarize(runs)
    assert summary["zdt1"]["best"] == {"100": "ehvi"}
    text = choice_sections.auto({"results": {"tasks": summary, "beyond": {}}}, "here")
    assert "| zdt1 | ehvi | **0.145** | 10 |" in text
    assert "| zdt1 | tpe | 0.545 | 10 |" in text
    assert text.count("**") == 2  # of the contexts nobody is ahead
    assert "medians of 10 seeds" in text


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bench_auto", "bench_overhead"])
def test_the_quick_run_ends_in_a_result(name: str, tmp_path: Path, repository: Path) -> None:
    if name == "bench_overhead":
        pytest.importorskip("optuna")
    given = {k: v for k, v in os.environ.items() if not k.startswith("BENCH_")}
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.search.{name}", "--quick", "--json", str(out)],
        cwd=repository,
        env=given,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert out.exists()
