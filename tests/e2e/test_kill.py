"""A whole recipe that is killed at many moments ends in the bytes of one that ran through."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.command import sharpen, small_recipe, start, write_recipe
from sharpen.core.files import sha256_file
from sharpen.core.run_folder import load_run

STAGES = ("data", "train", "eval", "compress", "serve")


def _at_once(folder: Path, process: subprocess.Popen[str]) -> bool:
    return True


def _checkpoint(step: int) -> Moment:
    def reached(folder: Path, process: subprocess.Popen[str]) -> bool:
        return any(
            int(path.parent.name.removeprefix("step-")) >= step
            for path in folder.glob(".work/*/step-????????/manifest.json")
        )

    return reached


def _torch_loaded(folder: Path, process: subprocess.Popen[str]) -> bool:
    """The worker, or the server it started, has mapped torch, so it is past its start."""
    workers = psutil.Process(process.pid).children(recursive=True)
    return any("libtorch_cpu" in m.path for w in workers for m in w.memory_maps())


def _files_appear(folder: Path, process: subprocess.Popen[str]) -> bool:
    return any(folder.glob(".work/*/.output/*"))


def _server_listens(folder: Path, process: subprocess.Popen[str]) -> bool:
    family = psutil.Process(process.pid).children(recursive=True)
    return any(c.status == "LISTEN" for p in family for c in p.net_connections("tcp"))


Moment = Callable[[Path, subprocess.Popen[str]], bool]
# The stage to hit, the moment in it, and what is killed: the command alone, the stage's worker
# alone, or both at once.
KILLS: list[tuple[str, Moment, str]] = [
    ("data", _at_once, "command"),
    ("train", _checkpoint(8), "command"),
    ("train", _checkpoint(16), "worker"),
    ("eval", _torch_loaded, "both"),
    ("compress", _files_appear, "worker"),
    ("serve", _server_listens, "both"),
]


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256_file(p) for p in files}


def _rows(folder: Path) -> Counter[tuple[Any, ...]]:
    return Counter((r["stage"], r["step"], r["name"]) for r in load_run(folder).metrics)


def _curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(r["step"], r["value"]) for r in load_run(folder).metrics if r["name"] == name]


def _wait(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if condition():
                return
        time.sleep(0.01)


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
    draw, hits = random.Random(0), Counter[str]()
    for stage, moment, target in KILLS:
        with start("run", recipe, "-o", killed, cwd=tmp_path) as process:
            _wait(lambda s=stage, m=moment, p=process: _begun(killed, s) and m(killed, p), process)
            time.sleep(draw.uniform(0, 0.1))
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
