"""Memory shared by processes: in order, by tickets alone, and gone however a side ends."""

import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.serve.split.ring import Ring, Rings

HEAD = "import sys, time, os; from sharpen.serve.split.ring import Ring, Rings\n"
WRITER = (
    HEAD
    + """
ring = Ring(slots=2, slot_bytes=4096)
print(ring.ticket, flush=True)
for number in range(int(sys.argv[1])):
    while number - ring.done >= ring.slots:
        time.sleep(0.001)
    ring.slot(number)[:8] = number.to_bytes(8, "little")
    print(number, flush=True)
time.sleep(60)
"""
)
READER = (
    HEAD
    + """
ring = Ring.opened(sys.argv[1])
print(int.from_bytes(ring.slot(0)[:8], "little"), flush=True)
time.sleep(60)
"""
)
FULL = (
    HEAD
    + """
import logging, resource
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
rings = Rings()
print([rings.take("http://other", lambda ticket: True) for _ in range(3)])
"""
)


def child(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(process):
    """Kill it; what it wrote to stderr."""
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    return errors


def shared():
    """Named memory, but for what other tests' processes may have, such as folders of sandboxes."""
    names = Path("/dev/shm").iterdir()
    found = [one for one in names if one.name.startswith(("psm_", "sharpen"))]
    return [one for one in found if not one.name.startswith("sharpen-sandbox-")]


def rings_of(pid):
    gc.collect()  # a failed open is held by its traceback
    links = [one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    return [one for one in links if "sharpen-kv" in str(one)]


def test_records_come_in_order_through_fewer_slots_and_outlive_their_writer():
    writer = child(WRITER, "7")
    ring = Ring.opened(writer.stdout.readline().strip())
    for number in range(5):
        assert int(writer.stdout.readline()) == number
        assert int.from_bytes(ring.slot(number)[:8], "little") == number
        ring.done = number + 1
    assert int(writer.stdout.readline()) == 5
    assert killed(writer) == ""
    assert int.from_bytes(ring.slot(5)[:8], "little") == 5  # still there for who has it open
    assert shared() == []
    ring.close()
    del ring
    assert rings_of(os.getpid()) == []


@pytest.mark.parametrize("told", [False, True])
def test_a_writer_that_is_killed_leaves_nothing(told):
    writer = child(WRITER, "0")
    ticket = writer.stdout.readline().strip()
    ring = Ring.opened(ticket) if told else None
    assert killed(writer) == ""
    if ring is not None:
        ring.close()
    del ring
    with pytest.raises(ExecutionError, match="no ring of memory"):
        Ring.opened(ticket)
    assert shared() == []
    assert rings_of(os.getpid()) == []


def test_a_reader_that_is_killed_leaves_nothing():
    ring = Ring(slots=2, slot_bytes=4096)
    ring.slot(0)[:8] = (77).to_bytes(8, "little")
    reader = child(READER, ring.ticket)
    assert int(reader.stdout.readline()) == 77
    assert killed(reader) == ""
    assert ring.done == 0
    ring.close()
    assert shared() == []


def test_without_memory_one_warning_says_that_http_is_used():
    done = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[None, None, None]"
    assert done.stderr.count("WARNING") == 1
    assert "no memory can be shared" in done.stderr and "go by HTTP" in done.stderr


def test_only_a_ticket_opens_and_only_a_ring():
    ring = Ring(slots=1, slot_bytes=4096)
    secret = ring.ticket.rpartition(".")[2]
    for wrong in (
        ring.ticket.replace(secret, "0" * 64),
        ring.ticket.replace(".1.4096.", ".2.4096."),
        f"{os.getpid()}.1.1.4096.{secret}",
        "nonsense",
        "../../etc.1.1.1.1",
    ):
        with pytest.raises(ExecutionError, match="no ring of memory"):
            Ring.opened(wrong)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(int(ring.ticket.split(".")[1]), 4096)
    ring.close()


def test_rings_are_used_again_after_whole_transfers_only():
    rings = Rings(slots=1, slot_bytes=4096)
    asked = []

    def ask(ticket):
        asked.append(ticket)
        return True

    first = rings.take("a", ask)
    first.done = 3
    rings.give(first)
    second = rings.take("a", ask)
    assert second is first and second.done == 0
    rings.drop(second)
    third = rings.take("a", ask)
    assert third.ticket != first.ticket
    assert len(asked) == 1
    rings.forget("a")
    rings.give(third)
    rings.give(rings.take("a", ask))
    assert len(asked) == 2
    rings.close()
    del first, second, third
    assert rings_of(os.getpid()) == []


def test_there_are_not_more_rings_than_memory_is_meant_for():
    rings = Rings(slots=1, slot_bytes=4096)
    taken = [rings.take("a", lambda ticket: True) for _ in range(9)]
    assert taken[8] is None and None not in taken[:8]
    rings.give(taken[0])
    assert rings.take("a", lambda ticket: True) is taken[0]
    for one in taken[:8]:
        rings.drop(one)
    del taken, one
    assert rings_of(os.getpid()) == []


@pytest.mark.parametrize(("connector", "warnings"), [("auto", 0), ("shm", 1)])
def test_a_worker_elsewhere_gets_http(connector, warnings, caplog):
    rings = Rings(connector, slots=1, slot_bytes=4096)
    with caplog.at_level(logging.WARNING):
        assert [rings.take("http://far", lambda ticket: False) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == warnings
    with pytest.raises(ConnectionError):
        rings.take("http://gone", fail)
    assert rings._num_taken == 0
    rings.close()


def fail(ticket):
    raise ConnectionError(ticket)


def test_http_makes_no_ring_and_others_are_refused():
    assert Rings("http").take("a", fail) is None
    with pytest.raises(ConfigError, match="kv_connector='tcp' must be auto, http or shm"):
        Rings("tcp")
