import os
import subprocess
import sys

import pytest

from sharpen.core.huge_pages import (
    collapse,
    has_huge_allocator,
    laying_out,
    reserve,
    worker_environment,
)


def test_a_child_gets_the_settings_and_what_the_user_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    environment = worker_environment()
    assert "glibc.malloc.hugetlb=1" in environment["GLIBC_TUNABLES"]
    assert environment["GOMP_SPINCOUNT"] == "7"
    assert "GLIBC_TUNABLES" not in os.environ
    assert not has_huge_allocator()
    monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])
    assert has_huge_allocator()
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    assert worker_environment()["GLIBC_TUNABLES"] == "glibc.malloc.check=0"


def test_a_python_starts_with_these_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "print(len(bytes(1 << 24)))"],
        env=worker_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "16777216\n", "")


def test_memory_keeps_its_contents_and_bad_addresses_do_no_harm() -> None:
    import torch

    values = torch.arange(3 << 20, dtype=torch.int32)
    moved = collapse([(values.data_ptr(), values.nbytes)])
    assert 0 <= moved <= values.nbytes // (2 << 20) + 2
    assert torch.equal(values, torch.arange(3 << 20, dtype=torch.int32))
    assert collapse([(1 << 46, 1 << 22)]) == 0
    assert collapse([]) == 0


def test_moves_wait_while_weights_are_laid_out() -> None:
    import torch

    values = torch.arange(3 << 20, dtype=torch.int32)
    alone = collapse([(values.data_ptr(), values.nbytes)])
    with laying_out():
        with laying_out():
            assert collapse([(values.data_ptr(), values.nbytes)]) == 0
        with pytest.raises(ZeroDivisionError), laying_out():
            raise ZeroDivisionError
    assert torch.equal(values, torch.arange(3 << 20, dtype=torch.int32))
    assert (collapse([(values.data_ptr(), values.nbytes)]) > 0) == (alone > 0)  # it waits no longer


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")
def test_reserved_memory_is_zeros_and_taken_as_it_is_written() -> None:
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    memory = reserve(1 << 30)
    assert process.memory_info().rss - before < 1 << 26
    memory[5:8] = b"abc"
    assert memory[4:9] == b"\0abc\0"
