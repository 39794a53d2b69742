import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharpen.core.errors import BusyError, StorageError, storage_errors
from sharpen.core.files import (
    FileLock,
    atomic_dir,
    atomic_write_bytes,
    atomic_write_json,
    sha256_file,
)

HOLD = """
import sys, time
from pathlib import Path
from sharpen.core.files import FileLock
FileLock(Path(sys.argv[1]), "the thing").acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        atomic_write_json(path, {"x": float("nan")})
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def fail() -> None:
        with atomic_dir(target) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "two"):
        with atomic_dir(target) as folder:
            (folder / "f").write_text(text)
        assert (target / "f").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_writing_on_a_full_disk_says_so() -> None:
    def fill() -> None:
        with storage_errors(Path("/dev/full")):
            Path("/dev/full").write_bytes(b"x" * 100_000)

    with pytest.raises(StorageError, match="The disk is full"):
        fill()


def test_a_path_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        atomic_write_bytes(tmp_path / "file" / "below", b"")


def test_sha256_matches_a_published_value(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == expected


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"the thing is in use by pid {holder.pid}"):
        FileLock(path, "the thing").acquire()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with FileLock(path) as lock:
        assert lock.fileno() > 0
        with pytest.raises(BusyError):
            FileLock(path).acquire(timeout_s=0.05)
    FileLock(path).acquire(timeout_s=1)


def test_waiting_for_a_lock_succeeds_once_it_is_free(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    first.acquire()
    start = time.monotonic()
    first.release()
    second.acquire(timeout_s=5)
    assert time.monotonic() - start < 5
    second.release()
