"""Rooms load what is asked of them and nothing else."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from sharpen.core.lazy import exports

ROOMS = ["compress", "eval", "models", "optim", "plan", "serve", "train"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_loads(room: str) -> None:
    package = importlib.import_module(f"sharpen.{room}")
    for name in package.__all__:
        value = getattr(package, name)
        assert type(value).__name__ != "module", name
        # A module of that name would take its place once it is imported.
        assert importlib.util.find_spec(f"sharpen.{room}.{name}") is None, name
    with pytest.raises(AttributeError, match=f"sharpen.{room}' has no attribute 'nothing'"):
        _ = package.nothing


def test_a_name_is_looked_up_once() -> None:
    load = exports("core.test_lazy", {"digest": "sharpen.core.config"})
    sys.modules["core.test_lazy"] = sys.modules[__name__]
    try:
        assert load("digest") is sys.modules[__name__].digest  # type: ignore[attr-defined]
    finally:
        del sys.modules["core.test_lazy"]


def test_recipes_are_read_and_planned_without_torch() -> None:
    modules = [f"sharpen.{room}.stages" for room in ("compress", "data", "eval", "serve", "train")]
    program = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
