"""Settings shared by all tests: threads, seeds, caches, and assets that CI must have."""

import gc
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # GPU kernels are interpreted

import pytest
from hypothesis import HealthCheck, settings

from sharpen.core.assets import ASSETS, check_asset
from sharpen.plan.device import cache_file

settings.register_profile(
    "sharpen", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sharpen")
_DEVICE = cache_file()
# What is collected stays to the end: looking for garbage in it takes a third of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Garbage is looked for from now on, in what comes after."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``asset`` skip without their asset, and fail where assets are required."""
    marker = item.get_closest_marker("asset")
    if marker is None:
        return
    for name in marker.args or ("smollm2-135m-instruct",):
        if not check_asset(name, verify=False).installed:
            reason = f"asset {name} is not installed: {ASSETS[name].install}"
            if os.environ.get("SHARPEN_REQUIRE_ASSETS") == "1":
                pytest.fail(reason)
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _loggers_that_speak() -> None:
    """Optuna's store silences every logger that exists, where it changes its tables."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("sharpen") and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Workers run side by side, so each uses one thread."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _a_machine_that_stays_the_same() -> None:
    """A profile counts for ten minutes: commands would measure the machine again and again."""
    with suppress(OSError):
        if time.time() - _DEVICE.stat().st_mtime < 600:
            os.utime(_DEVICE)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).resolve().parent.parent
