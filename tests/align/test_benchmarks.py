"""The benchmarks of alignment run, as a check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.align.bench_trl import GENERATIONS, NEW, PROMPTS, limit

from sharpen.core.assets import asset_path
from sharpen.core.model_spec import ModelSpec


@pytest.mark.nightly
def test_the_quick_benchmark_of_rewards_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.align.bench_rewards", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    results = json.loads(out.read_text())["results"]
    assert results["hanging"] > 0
    assert set(results["summary"]) == {
        "4 workers, 1 s, a step ahead",
        "4 workers, 1 s, when needed",
    }


@pytest.mark.nightly
def test_the_quick_benchmark_of_a_training_that_waits_runs(
    repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.align.bench_stalls", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    results = json.loads(out.read_text())["results"]
    assert results["summary"].keys() == {"1"}
    assert results["summary"]["1"].keys() == {"0", "1"}
    assert sum(one["hung"] for own in results["runs"]["1"].values() for one in own) > 0


@pytest.mark.nightly
@pytest.mark.peer
def test_the_quick_benchmark_beside_trl_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.align.bench_trl", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    results = json.loads(out.read_text())["results"]
    assert {"dpo, tiny", "grpo, tiny", "grpo, long prompts, tiny"} < results.keys()


@pytest.mark.nightly
def test_operations_of_a_step_are_those_of_its_products(tmp_path: Path) -> None:
    found = limit("tiny", tmp_path / "rows.jsonl", long=False, steps=1)["operations"]
    spec = ModelSpec.from_ref(asset_path("tiny"))
    layers = spec.num_parameters - spec.hidden_size * spec.vocab_size
    tokens = PROMPTS * GENERATIONS * NEW
    # More are those of prompts, which the engine computes for each completion, and attention.
    forward = 2 * tokens * (layers + spec.hidden_size * spec.vocab_size)
    assert forward < found["generate"] < 1.4 * forward
    assert 3 * forward < found["learn"] < 1.2 * 3 * forward


@pytest.mark.nightly
def test_the_quick_benchmark_of_faster_programs_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.align.bench_perf", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    summary = json.loads(out.read_text())["results"]["summary"]
    assert set(summary) == {
        "SFT on slow programs",
        "then RRHF on lists",
        "or SFT on the fast ones",
    }


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name", ["agents", "agents_lm", "instructions", "bcoder", "functions", "remax", "learning"]
)
def test_the_quick_benchmarks_of_methods_run(name: str, repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", f"benchmarks.align.bench_{name}", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    assert json.loads(out.read_text())["results"]
