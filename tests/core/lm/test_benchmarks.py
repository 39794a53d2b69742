"""The benchmark of calls runs, as a check."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
def test_the_quick_benchmark_of_calls_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.text.bench_lm", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=120)
    document = json.loads(out.read_text())
    assert document["benchmark"] == "text_lm"
    assert sum(document["results"]["shared"]["paid"]) == document["results"]["shared"]["replies"]
