"""The same as another user than root, with an older kernel's rules, and without some rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from benchmarks.code.attacks import ATTACKS

from sharpen.core.sandbox import Job, Limits, SandboxPool, detect_tiers
from sharpen.core.sandbox.process import Plan
from sharpen.core.sandbox.python import interpreter
from sharpen.core.sandbox.users import count_tasks, unused_user

# Needs the standard library alone, so that any interpreter can run it.
PROGRAM = """
import json, os, sys
from benchmarks.code.attacks import ATTACKS
from sharpen.core.sandbox import Job, Limits, SandboxPool, detect_tiers
from sharpen.core.sandbox.process import Plan
limits = Limits(cpu_s=0.5, wall_s=2.5, memory_bytes=128 << 20, scratch_bytes=8 << 20)
found = {"uid": os.getuid(), "best": detect_tiers().best, "wrong": [], "runs": 0}
def run(name, plan, attacks):
    with SandboxPool.of(plan, 1) as pool:
        for attack in attacks:
            result = pool.run(Job(source=attack.source, entry="f", inputs=[()]))
            found["runs"] += 1
            right = str(result.status) in attack.ends
            if not right or result.ok and attack.ends == ("ok",) and result.outputs != ([],):
                found["wrong"].append([name, attack.name, str(result.status),
                                       repr(result.outputs), str(result.error)])
quick = [a for a in ATTACKS if not a.slow or a.name == "fork bomb"]
for tier in (1, 2):
    if tier <= found["best"]:
        run(f"tier {tier}", Plan(tier=tier, limits=limits), quick)
signals = [a for a in quick if "signal" in a.name or "daemon" in a.name or "user" in a.name]
for version in (1, 3, 5):
    run(f"landlock {version}", Plan(tier=1, limits=limits, most_landlock=version), signals)
print(json.dumps(found))
"""


def another_interpreter() -> str:
    """One that any user may run."""
    own = interpreter(with_packages=False)
    if own.unreadable_below(()) is None:
        return own.executable
    for path in ("/usr/bin/python3.12", "/usr/bin/python3.11"):
        if Path(path).exists():
            return path
    pytest.skip("no interpreter that another user may run")


@pytest.mark.slow
def test_attacks_are_contained_without_rights(repository: Path) -> None:
    words = [another_interpreter(), "-c", PROGRAM]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv (util-linux) is not installed")
        words = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *words]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # this checkout may be closed
        root = Path(folder)
        root.chmod(0o755)
        for name in ("src/sharpen", "benchmarks"):
            unneeded = shutil.ignore_patterns("__pycache__", "results", "*.so")
            shutil.copytree(repository / name, root / name, ignore=unneeded)
        path = f"{root / 'src'}{os.pathsep}{root}"
        environment = {"PYTHONPATH": path, "PATH": os.environ["PATH"]}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        done = subprocess.run(
            words,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["uid"] != 0
    assert found["wrong"] == []
    assert found["runs"] > 50


@pytest.mark.parametrize("version", [1, 3, 5])
def test_older_rules_for_files_hold_too(version: int) -> None:
    if detect_tiers().best < 1:
        pytest.skip(detect_tiers().missing[1])
    plan = Plan(tier=1, limits=Limits(cpu_s=1), most_landlock=version)
    names = ("reads what", "writes where", "signals its", "a daemon")
    with SandboxPool.of(plan, 1) as pool:
        for attack in (a for a in ATTACKS if a.name.startswith(names)):
            result = pool.run(Job(source=attack.source, entry="f", inputs=[()]))
            assert result.outputs == ([],), attack.name
        assert pool.run(Job(source="")).ok
        sandbox = pool._workers[0].program
        assert sandbox is not None
        assert sandbox.state["landlock"] == version
        assert not sandbox.state["broadcast"]  # "all" might be more than the sandbox


def test_users_that_nothing_else_is() -> None:
    if sys.platform != "linux":
        pytest.skip("users of Linux")
    found = {unused_user() for _ in range(5)}
    assert all(user >= 1000 for user in found)
    assert count_tasks() >= 1


def test_an_interpreter_that_another_user_cannot_read_is_noticed(tmp_path: Path) -> None:
    own = interpreter(with_packages=True)
    assert own.sys_path
    assert all(Path(folder).is_dir() for folder in own.read)
    inside = tmp_path / "prefix"
    inside.mkdir()
    tmp_path.chmod(0o700)
    made = type(own)(own.executable, (str(inside),), ())
    assert made.unreadable_below((str(inside),)) is None
    assert made.unreadable_below(()) is not None
