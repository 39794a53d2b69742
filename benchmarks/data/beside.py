"""Ask a peer's interpreter, named by ``BENCH_PEERS_PYTHON``."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["ask_peer", "has_peers"]


def has_peers() -> bool:
    """Whether an interpreter with the peers is named."""
    return "BENCH_PEERS_PYTHON" in os.environ


def ask_peer(task: str, given: dict[str, Any], program: str = "peers.py") -> dict[str, Any]:
    """What a task of a program of this folder came to; one thread."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.json", Path(folder) / "out.json"
        source.write_text(json.dumps(given))
        path = str(Path(__file__).with_name(program))
        line = [os.environ["BENCH_PEERS_PYTHON"], path, task, str(source), str(target)]
        quiet = subprocess.DEVNULL
        subprocess.run(line, check=True, stderr=None if os.environ.get("BENCH_LOUD") else quiet)
        found: dict[str, Any] = json.loads(target.read_text())
        return found
