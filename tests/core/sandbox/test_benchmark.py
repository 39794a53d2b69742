"""The benchmark of sandboxes runs, as a check without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
def test_a_quick_benchmark_runs(repository: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "BENCH_CODE_PYTHON"}
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.code.bench_sandbox", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, env=environment, check=True, timeout=120)
    results = json.loads(out.read_text())["results"]
    assert all(found["not_held"] == [] for found in results["attacks"].values())
    assert all(row["sharpen"] == "held" for row in results["beside"].values())
