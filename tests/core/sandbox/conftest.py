"""Pools of every tier that this machine has; one sandbox each, with tight limits."""

import sys
from collections.abc import Iterator

import pytest

from sharpen.core.sandbox import Limits, SandboxPool, detect_tiers

if sys.platform != "linux":
    pytest.skip("sandboxes need Linux", allow_module_level=True)

TIGHT = Limits(cpu_s=0.5, wall_s=2.5, memory_bytes=128 << 20, scratch_bytes=8 << 20)


def need(tier: int) -> int:
    """``tier``, or a skip that says why it is not there."""
    tiers = detect_tiers()
    if tier > tiers.best:
        pytest.skip(f"tier {tier}: {tiers.missing[tier]}")
    return tier


@pytest.fixture(scope="session", params=[1, 2, 3], ids="tier{}".format)
def pool(request: pytest.FixtureRequest) -> Iterator[SandboxPool]:
    """One worker of a tier, with tight limits."""
    with SandboxPool(1, need(request.param), TIGHT) as made:
        yield made


@pytest.fixture(scope="session")
def best() -> Iterator[SandboxPool]:
    """Two workers of the best tier, with the usual limits."""
    need(1)
    with SandboxPool(2) as made:
        yield made
