"""Huge pages: memory in pages of 2 MiB instead of 4 KiB, where the kernel offers them (Linux).

A process that streams gigabytes of weights misses the address cache at every small page, and one
that allocates activations by the megabyte faults every page in. Huge pages spare both. Processes
that Sharpen starts ask for them through the allocator (:func:`worker_environment`); weights in a
process that it did not start are moved into them (:func:`collapse`), or made there
(:func:`reserve`).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator

__all__ = ["collapse", "has_huge_allocator", "laying_out", "reserve", "worker_environment"]

_waiting: list[tuple[int, int]] | None = None
_PAGE = 2 << 20
_MADV_COLLAPSE = 25
_TUNABLE = "glibc.malloc.hugetlb"
# Large blocks stay in the heap when freed, so that the next step finds their pages there.
_TUNABLES = (
    f"{_TUNABLE}=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=1073741824"
)


def worker_environment() -> dict[str, str]:
    """This process's environment, with the allocator's and threads' settings for a child.

    What the user has set stays. ``GOMP_SPINCOUNT`` lets a waiting thread sleep soon, so that a busy
    machine does not slow it manyfold.
    """
    environment = dict(os.environ)
    environment.setdefault("GLIBC_TUNABLES", _TUNABLES)
    environment.setdefault("GOMP_SPINCOUNT", "20000")
    return environment


def has_huge_allocator() -> bool:
    """Whether this process was started with an allocator that asks for huge pages."""
    return _TUNABLE in os.environ.get("GLIBC_TUNABLES", "")


def collapse(regions: Iterable[tuple[int, int]]) -> int:
    """Move memory into huge pages, in place; its contents, and its neighbours', stay.

    Args:
        regions: address and bytes of each piece; every huge page that holds some of it is moved.

    Returns:
        Number of huge pages that could be moved; 0 where the kernel cannot, or within
        :func:`laying_out`.
    """
    if _waiting is not None:
        _waiting.extend(regions)
        return 0
    pages = {
        page
        for address, size in regions
        for page in range(address // _PAGE, -(-(address + size) // _PAGE))
    }
    if not sys.platform.startswith("linux"):
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(advise(page * _PAGE, _PAGE, _MADV_COLLAPSE) == 0 for page in sorted(pages))


def reserve(size: int) -> mmap.mmap:
    """Zeroed memory that is taken from the system only as it is written, in huge pages.

    It is given back when nothing refers to it any more. Linux alone.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


@contextlib.contextmanager
def laying_out() -> Iterator[None]:
    """Let calls of :func:`collapse` wait till the end, when free memory has been given back.

    Giving it back later would tear huge pages apart whose neighbours are free. glibc alone can.
    """
    global _waiting
    if _waiting is not None:
        yield
        return
    _waiting = []
    try:
        yield
    finally:
        regions, _waiting = _waiting, None
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        collapse(regions)
