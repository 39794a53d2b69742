"""Programs that try to get out, to cheat or to stop the runner: each at every tier."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from benchmarks.code.attacks import ATTACKS, Attack

from sharpen.core.sandbox import Job, SandboxPool

PROBE = Job(
    source="import os\ndef f(): return sorted(os.listdir('.')), os.getcwd()",
    entry="f",
    inputs=[()],
)


def inside(pool: SandboxPool) -> int:
    """Processes of the pool's sandbox, with those that keep it."""
    sandbox = pool._workers[0].program
    if sandbox is None:
        return 0
    return len(psutil.Process(sandbox.pid).children(recursive=True)) + 1


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name.replace(" ", "-"))
def test_it_is_contained(pool: SandboxPool, attack: Attack) -> None:
    os.environ["SHARPEN_TEST_SECRET"] = "needle-7391"
    assert pool.run(PROBE).ok  # the sandbox is up
    idle = inside(pool)
    job = Job(source=attack.source, entry="f", inputs=[()], expected=None)
    begin = time.monotonic()
    result = pool.run(job)
    took = time.monotonic() - begin
    # On a busy machine the time on the clock is over before the processor's is.
    ends = {*attack.ends, "wall_timeout"} if "timeout" in attack.ends else set(attack.ends)
    assert str(result.status) in ends, result.summary() + result.stderr
    if result.ok and attack.ends == ("ok",):
        assert result.outputs == ([],)
    assert took < pool.plan.limits.wall_limit_s + 20  # it did not hang
    again = pool.run(PROBE)
    assert again.ok
    assert again.outputs[0][0] == []  # no file is left
    assert inside(pool) == idle  # no process is left
    if pool.tier == 1:
        assert list(Path(again.outputs[0][1]).iterdir()) == []
    assert not list(Path("/dev/shm").glob("*written-by-a-job*"))


def test_what_is_expected_never_gets_in(pool: SandboxPool) -> None:
    attack = next(a for a in ATTACKS if a.name.startswith("finds what is expected"))
    result = pool.run(Job(source=attack.source, entry="f", inputs=[()], expected=["needle-7391"]))
    assert result.status == "wrong"
    assert result.outputs == ([],)
