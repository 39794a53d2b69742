"""The ``sharpen`` command as a process of its own, and a recipe small enough for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "1000",
    "COLUMNS": "100",
    # Where a command runs pytest on a small file, loading plugins takes most of the time.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def sharpen(*arguments: object, cwd: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; a hang is a failure."""
    options = {"env": ENVIRONMENT, "timeout": 300, "check": False, **changes}
    words = [sys.executable, "-m", "sharpen.cli.main", *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, **options)


@contextmanager
def start(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process group of its own; it is ended on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sharpen.cli.main", *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def document(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document on standard output."""
    return json.loads(done.stdout)


def write_chats(file: Path, rows: int = 60) -> Path:
    """Examples of sums, as prompts and completions."""
    examples = [{"prompt": f"{i} + {i} =", "completion": f"{2 * i}"} for i in range(rows)]
    file.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return file


def small_recipe(**changes: Any) -> dict[str, Any]:
    """Every stage of the main job, on the small model, in seconds; ``chats.jsonl`` is its data."""
    recipe: dict[str, Any] = {
        "sharpen": 1,
        "name": "small",
        "model": "tiny",
        "data": {
            "source": {"path": "chats.jsonl"},
            "format": "prompt_completion",
            "split": {"valid": 0.2},
            "max_tokens": 96,
        },
        "train": {
            "method": "lora",
            "rank": 4,
            "lr": 2e-3,
            "steps": 20,
            "global_batch": 2,
            "checkpoint": {"every": 4},
        },
        "eval": {"limit": 8, "samples": 2, "max_new_tokens": 8},
        "compress": {
            "variants": [{"bits": 8}, {"bits": 4, "group": 32}],
            "limit": 4,
            "new_tokens": 8,
        },
        "serve": {"variant": "int4", "check": {"prompt": "Say hello.", "max_tokens": 8}},
        "report": {},
    }
    return {**recipe, **changes}


def write_recipe(folder: Path, recipe: dict[str, Any], name: str = "recipe.yaml") -> Path:
    """The recipe as a file in ``folder``, with its data beside it."""
    write_chats(folder / "chats.jsonl")
    (folder / name).write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder / name
