"""The prompts of optimizers that read are those that were looked through, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from text.golden_prompts import GOLDEN, NAMES, prompts


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_the_one_that_was_looked_through(name: str) -> None:
    assert prompts(name) == (GOLDEN / f"{name}.txt").read_text()


def test_another_process_writes_the_same(repository: Path) -> None:
    code = "from text.golden_prompts import prompts; print(prompts('optoprime'), end='')"
    line = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(repository / "tests"), "PYTHONHASHSEED": "7"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == (GOLDEN / "optoprime.txt").read_text()
