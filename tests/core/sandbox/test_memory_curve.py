"""Samples of a job's memory, taken from outside."""

import pytest

from sharpen.core.sandbox import Job, SandboxPool

HOLDS = """
import time
def f(mib, seconds):
    block = bytearray(mib << 20)
    for i in range(0, len(block), 4096):
        block[i] = 1
    time.sleep(seconds)
    return len(block)
"""


@pytest.mark.parametrize("mib", [10, 50])
def test_a_block_is_seen_while_it_is_held(pool: SandboxPool, mib: int) -> None:
    job = Job(source=HOLDS, entry="f", inputs=[(mib, 0.1)], sample_memory=True)
    result = pool.run(job)
    assert result.ok, result.summary()
    times = [at for at, _ in result.memory]
    assert len(times) >= 10
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= result.wall_s
    most = max(held for _, held in result.memory)
    assert mib <= most <= mib + 4
    # A block that is held for a tenth of a second fills about that much of the curve.
    assert sum(held > 0.9 * mib for _, held in result.memory) >= 8
    assert result.to_json()["memory"][0] == list(result.memory[0])


def test_children_count(pool: SandboxPool) -> None:
    source = (
        HOLDS
        + """
import os
def g(mib, seconds):
    pid = os.fork()
    if pid == 0:
        f(mib, seconds)
        os._exit(0)
    os.waitpid(pid, 0)
    return 0
"""
    )
    result = pool.run(Job(source=source, entry="g", inputs=[(20, 0.1)], sample_memory=True))
    assert result.ok, result.summary()
    assert max(held for _, held in result.memory) >= 20


def test_nothing_is_sampled_unless_asked(pool: SandboxPool) -> None:
    assert pool.run(Job(source=HOLDS, entry="f", inputs=[(1, 0.02)])).memory == ()
