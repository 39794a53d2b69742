"""The benchmarks of programs and prompts run, as a check without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["graph", "prompts", "tasks"])
def test_a_quick_benchmark_runs(name: str, repository: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "BENCH_TEXT_PYTHON"}
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", f"benchmarks.text.bench_{name}", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, env=environment, check=True, timeout=120)
    document = json.loads(out.read_text())
    assert document["benchmark"] == f"text_{name}"
    assert document["results"]
