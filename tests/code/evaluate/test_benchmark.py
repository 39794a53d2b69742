"""The benchmark of evaluators runs, as a check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.code.bench_enamel import conclude


@pytest.mark.nightly
def test_the_quick_benchmark_runs(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.code.bench_enamel", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, check=True, timeout=300)
    summary = json.loads(out.read_text())["results"]["summary"]
    assert summary["problems"] == summary["faster"] == summary["sharpen"]["ranked_right"] == 3
    assert summary["sharpen"]["reference"]["value"] == pytest.approx(1.0)


def test_conclusions_count_what_differs() -> None:
    def one(reference: float, canonical: float) -> dict[str, object]:
        return {"efficiency": [reference, canonical], "passed": [True, canonical > 0], "seconds": 1}

    rows = {
        "a": {"faster": 2.0, "sharpen": one(1.0, 0.5), "enam": one(0.8, 0.9)},
        "b": {"faster": 1.05, "sharpen": one(1.0, 1.1), "enam": one(1.0, 0.0)},
    }
    found = conclude(rows)
    assert (found["problems"], found["faster"]) == (2, 1)
    assert (found["sharpen"]["ranked_right"], found["enam"]["ranked_right"]) == (1, 0)
    assert (found["sharpen"]["far_off"], found["enam"]["far_off"]) == (0, 1)
    assert found["enam"]["canonical_passed"] == 1
    assert found["enam"]["reference"]["value"] == pytest.approx(0.9)
