"""A whole recipe that is killed at many moments ends in the bytes of one that ran through."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from e2e.command import sharpen, small_recipe, start, write_recipe
from sharpen.core.files import sha256_file
from sharpen.core.run import load_run

STAGES = ("data", "train", "eval", "compress", "serve")
# The stage to hit, after which share of its time, and what is killed: the command alone, the
# stage's worker alone, or both at once.
KILLS = [
    ("data", 0.0, 0.1, "command"),
    ("train", 0.5, 0.9, "both"),
    ("train", 0.5, 0.7, "worker"),
    ("eval", 0.5, 0.8, "both"),
    ("compress", 0.4, 0.7, "worker"),
    ("serve", 0.5, 0.6, "both"),
    ("serve", 0.7, 0.8, "command"),
]


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256_file(p) for p in files}


def _rows(folder: Path) -> Counter[tuple[Any, ...]]:
    return Counter((r["stage"], r["step"], r["name"]) for r in load_run(folder).metrics)


def _curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(r["step"], r["value"]) for r in load_run(folder).metrics if r["name"] == name]


def _wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.01)


def _durations(folder: Path) -> dict[str, float]:
    """Seconds from the end of the stage before to the end of each but the first."""
    ends = [(folder / name).lstat().st_mtime for name in STAGES]
    return {"data": 1.0, **dict(zip(STAGES[1:], np.diff(ends), strict=True))}


def _begun(folder: Path, stage: str) -> bool:
    """Whether ``stage`` is under way: those before it are linked, and one is at work."""
    before = STAGES[: STAGES.index(stage)]
    return all((folder / name).exists() for name in before) and any(folder.glob(".work/*/.output"))


def _kill(process: subprocess.Popen[str], target: str) -> list[psutil.Process]:
    """Kill, and give the processes that must be gone now."""
    assert process.poll() is None, "the run ended before it could be killed"
    family = psutil.Process(process.pid).children(recursive=True)
    if target == "command":
        process.kill()
    elif target == "both":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        family[0].kill()
    return family


@pytest.mark.slow
def test_a_recipe_killed_in_every_stage_ends_in_the_same_bytes(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_recipe())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = sharpen("run", recipe, "-o", whole, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    draw, hits, seconds = random.Random(0), Counter[str](), _durations(whole)
    for stage, low, high, target in KILLS:
        with start("run", recipe, "-o", killed, cwd=tmp_path) as process:
            _wait(lambda stage=stage: _begun(killed, stage), process)
            time.sleep(draw.uniform(low, high) * seconds[stage])
            under_way = next((name for name in STAGES if not (killed / name).exists()), "report")
            family = _kill(process, target)
            _, told = process.communicate(timeout=60)
        assert "Traceback" not in told
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == [], "a killed run left processes behind"
        assert process.returncode == (1 if target == "worker" else -signal.SIGKILL), told
        hits[under_way] += 1
    assert set(hits) >= set(STAGES), f"some stage was never killed: {hits}"
    last = sharpen("run", recipe, "-o", killed, cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert _hashes(killed / ".store") == _hashes(whole / ".store")
    assert max(_rows(killed).values()) == 1, "a row of the metrics was written twice"
    for name in ("loss", "grad_norm", "lr"):
        assert _curve(killed, name) == _curve(whole, name)
    assert {p.name for p in killed.iterdir()} == {p.name for p in whole.iterdir()}
    assert not (killed / ".work").exists()
    assert [p for p in tmp_path.rglob("*") if ".tmp" in p.name] == []


@pytest.mark.slow
def test_a_second_process_is_told_who_writes_the_folder(tmp_path: Path) -> None:
    parts = small_recipe(train={"steps": 4000, "global_batch": 2})
    recipe = write_recipe(tmp_path, {k: parts[k] for k in ("sharpen", "model", "data", "train")})
    with start("run", recipe, "-o", "out", cwd=tmp_path) as first:
        _wait(lambda: _begun(tmp_path / "out", "train"), first)
        before = _hashes(tmp_path / "out" / ".store")
        second = sharpen("run", recipe, "-o", "out", cwd=tmp_path)
        assert second.returncode == 2
        assert f"pid {first.pid} " in second.stderr
        assert "Traceback" not in second.stderr
        assert _hashes(tmp_path / "out" / ".store") == before
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        _, told = first.communicate(timeout=60)
        assert first.returncode == 130
        assert "resume" in told
