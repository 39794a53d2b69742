import os
import subprocess
import sys
import time
from pathlib import Path

from sharpen.core import leases
from sharpen.core.leases import this_process

LATER = time.monotonic() + 10**9  # however long the tests before it take


def is_lost(owner: str, expires: float, *, one_machine: bool = True) -> bool:
    return leases.is_lost(owner, expires, time.monotonic(), one_machine=one_machine)


def test_a_lease_of_this_process_lasts_until_it_expires() -> None:
    assert not is_lost(this_process(), LATER)
    assert is_lost(this_process(), time.monotonic() - 0.001)


def test_a_dead_owner_is_known_at_once_even_while_its_parent_has_not_collected_it() -> None:
    code = (
        "from sharpen.core.leases import this_process; print(this_process(), flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    owner = process.stdout.readline().strip()
    assert not is_lost(owner, LATER)
    process.kill()
    deadline = time.monotonic() + 10
    while not is_lost(owner, LATER):
        assert time.monotonic() < deadline
    process.communicate()
    assert is_lost(owner, LATER)


def test_a_process_that_reuses_the_number_is_another_owner() -> None:
    pid, ticks, place = this_process().split(" ", 2)
    assert is_lost(f"{pid} {int(ticks) - 1} {place}", LATER)


def test_owners_of_another_container_count_by_expiry_and_of_another_boot_not_at_all() -> None:
    pid, ticks, place = this_process().split(" ", 2)
    boot, _ = place.split("/", 1)
    elsewhere = f"{pid} {ticks} {boot}/pid:[1]"
    assert not is_lost(elsewhere, LATER)
    assert is_lost(elsewhere, time.monotonic() - 1)
    assert is_lost(f"{pid} {ticks} other-boot/pid:[1]", LATER)
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert int(pid) == os.getpid()
