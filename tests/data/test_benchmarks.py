"""The benchmarks of data run, as a check without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name",
    [
        "ngram",
        "quality",
        "language",
        "bitcipher",
        "bitcipher_lm",
        "minhash",
        "minhash_recall",
        "recipe",
    ],
)
def test_a_quick_benchmark_runs(name: str, repository: Path, tmp_path: Path) -> None:
    hidden = ("BENCH_CORPORA", "BENCH_PEERS_PYTHON", "BENCH_DATAJUICER_PYTHON")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", f"benchmarks.data.bench_{name}", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, env=environment, check=True, timeout=120)
    document = json.loads(out.read_text())
    assert document["benchmark"] == f"data_{name}"
    assert document["results"]
