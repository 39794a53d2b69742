"""The benchmark of log-probabilities runs, as a check; it checks values and gradients itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
@pytest.mark.peer
def test_the_quick_benchmark_of_log_probabilities_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.align.bench_logprobs", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    (found,) = json.loads(out.read_text())["results"].values()
    assert set(found["ratios"]) == {"whole logits", "TRL, chunked"}
    assert found["peak_bytes"]["Sharpen"] < found["peak_bytes"]["whole logits"]
