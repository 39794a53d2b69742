"""Ask programs of peers, in the interpreter that ``BENCH_TEXT_PYTHON`` names."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["ask", "has_peers", "interpreter"]


def has_peers() -> bool:
    """Whether an interpreter with the peers is named."""
    return "BENCH_TEXT_PYTHON" in os.environ


def interpreter() -> str:
    """The interpreter's path."""
    return os.environ["BENCH_TEXT_PYTHON"]


def ask(program: str, request: dict[str, Any]) -> Any:
    """The answer of a program of this folder, on one thread and without a network."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with tempfile.TemporaryDirectory() as folder:  # textgrad writes logs where it is run
        done = subprocess.run(
            [interpreter(), str(Path(__file__).with_name(program))],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr[-800:]}")
    return json.loads(done.stdout)
