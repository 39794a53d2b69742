"""The benchmarks of text run, as a check without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOPICS = ("mills", "rivers", "bread", "clocks", "ships", "bees", "glass", "wool", "salt", "tin")


def _quick(name: str, repository: Path, out: Path, **changes: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "BENCH_TEXT_PYTHON"}
    line = [sys.executable, "-m", f"benchmarks.text.bench_{name}", "--quick", "--json", str(out)]
    subprocess.run(line, cwd=repository, env=environment | changes, check=True, timeout=180)
    document = json.loads(out.read_text())
    assert document["benchmark"] == f"text_{name}"
    assert document["results"]


@pytest.mark.nightly
def test_a_quick_benchmark_of_chunks_runs(repository: Path, tmp_path: Path) -> None:
    _quick("rag", repository, tmp_path / "out.json")


@pytest.mark.nightly
@pytest.mark.asset("wordllama")
@pytest.mark.parametrize("name", ["faq", "rag_agent"])
def test_a_quick_benchmark_of_real_questions_runs(
    name: str, repository: Path, tmp_path: Path
) -> None:
    pages = tmp_path / "usr/share/doc/python3.11/html/_sources/faq"
    pages.mkdir(parents=True)
    sections = [
        f"What is said of {topic}?\n----------------------------------\n\n"
        f"Much is said of :ref:`{topic} <{topic}>`. They are old and everybody knows ``{topic}``.\n"
        for topic in TOPICS * 4
    ]
    (pages / "things.rst.txt").write_text("Things FAQ\n==========\n\n" + "\n".join(sections))
    _quick(name, repository, tmp_path / "out.json", SHARPEN_ASSETS=str(tmp_path))


@pytest.mark.nightly
@pytest.mark.asset
def test_a_quick_benchmark_of_a_small_model_runs(repository: Path, tmp_path: Path) -> None:
    _quick("smollm2", repository, tmp_path / "out.json")
