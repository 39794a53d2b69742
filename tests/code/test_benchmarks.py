"""The benchmark of measurement runs, as a check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
def test_the_quick_benchmark_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.code.bench_measure", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    results = json.loads(out.read_text())["results"]
    assert results["itself"]["times"] == results["five_percent"]["times"] == 2
    assert sum(results["itself"]["ours"]["decisions"].values()) == 2


@pytest.mark.nightly
def test_the_quick_benchmark_of_improve_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.code.bench_improve", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    summary = json.loads(out.read_text())["results"]["summary"]
    assert set(summary) == {"slow", "best"}
    assert sum(one["wrong"] for one in summary.values()) == 0


@pytest.mark.nightly
def test_the_quick_benchmark_of_edits_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.code.bench_pie", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    results = json.loads(out.read_text())["results"]
    assert results["copies"]["ours"]["optimized"] == 0
    assert results["retrieval"]["first"] == results["retrieval"]["programs"]
    assert results["loop"]["faster"] == results["loop"]["rows"] > 0


@pytest.mark.nightly
def test_the_quick_benchmark_of_forks_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.code.bench_fork", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    results = json.loads(out.read_text())["results"]
    assert set(results["part_ms"]) == {"modules", "outside", "rights", "program"}
    assert results["times_the_least"] > 1
