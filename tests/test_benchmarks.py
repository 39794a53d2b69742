"""All benchmarks load. That each runs, in small, is tested at night."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_every_benchmark_loads(repository: Path) -> None:
    files = sorted(repository.glob("benchmarks/**/bench_*.py"))
    names = [".".join(file.relative_to(repository).with_suffix("").parts) for file in files]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=repository, capture_output=True, text=True
    )
    assert len(names) > 30
    assert done.returncode == 0, done.stderr
