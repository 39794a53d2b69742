"""The comparisons with other packages run, as a check without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("module", "name"), [("textgrad_parity", "textgrad_parity"), ("bench_oracle", "oracle")]
)
def test_a_quick_benchmark_runs(module: str, name: str, repository: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "BENCH_TEXT_PYTHON"}
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", f"benchmarks.text.{module}", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, env=environment, check=True, timeout=120)
    document = json.loads(out.read_text())
    assert document["benchmark"] == f"text_{name}"
    assert document["results"]
