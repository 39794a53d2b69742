"""From rewards of real programs a model learns to write the one that is right and fast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.align.domains import write_program_model
from templates_reward import PROGRAMS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes each of the four with about the same chance."""
    folder = tmp_path_factory.mktemp("choosing")
    write_program_model(folder / "model")
    prompts = [{"prompt": f"{i % 10}{i // 10}="} for i in range(100)]
    rows = [{**one, "completion": letter} for one in prompts for letter in PROGRAMS]
    for name, some in {"prompts": prompts, "rows": rows}.items():
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text(lines)
    sharpen(
        folder,
        *("sft", "--model", "model", "--data", "rows.jsonl", "--lr", "3e-3", "--steps", "40"),
        "batch=32",
        output="runs/sft",
    )
    return folder


def sharpen(folder: Path, method: str, *words: str, output: str) -> None:
    line = [sys.executable, "-m", "sharpen.cli.main", "align", method, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*line, "--output", output],
        cwd=folder,
        check=True,
        timeout=300,
        env=environment,
        capture_output=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("method", "staleness"), [("remax", 0), ("ppo", 0), ("remax", 1)])
def test_the_fast_and_right_one_is_learned(
    folder: Path, repository: Path, method: str, staleness: int
) -> None:
    """Also one batch behind the weights that generate."""
    output = f"runs/{method}{staleness}"
    sharpen(
        folder,
        method,
        *("--model", "runs/sft/align", "--data", "prompts.jsonl", "--lr", "1e-3", "--steps", "60"),
        *("--reward", f"{repository / 'tests' / 'templates_reward.py'}:Templates"),
        *("batch=16", "sampling.max_tokens=2", "options.beta=0", f"staleness={staleness}"),
        output=output,
    )
    samples = (folder / output / "samples-align.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in samples]
    assert {one["completion"] for one in told[:12]} > {"s"}
    assert all(one["completion"] == "s" and one["reward"] == 1.0 for one in told[-10:])
