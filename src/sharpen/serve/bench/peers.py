"""Which other engines can be timed here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sharpen.core.errors import ConfigError, did_you_mean
from sharpen.serve.bench import contenders

__all__ = ["choose_peers", "lacking"]

_ASK = """
import importlib.util, json, sys
names = json.loads(sys.argv[1])
print(json.dumps([n for n in names if importlib.util.find_spec(n) is None]))
"""


def choose_peers(
    wanted: str, model: str, python: str | None = None, device: str = "cpu"
) -> tuple[list[str], dict[str, str]]:
    """Names of peers to time, and of those left out with why.

    Args:
        wanted: ``auto``, ``none``, or names separated by commas.
        model: resolved path; most engines take a folder, llama.cpp a ``.gguf`` file.
        python: interpreter that should have them; default this one.
        device: where they are to run.

    Raises:
        ConfigError: an unknown name, or one that is named and cannot be timed.
    """
    known = [name for name in contenders.CONTENDERS if name != "sharpen"]
    if wanted == "none":
        return [], {}
    names = known if wanted == "auto" else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no peer {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."
            )
    gone = lacking(sorted({m for n in names for m in contenders.CONTENDERS[n][0]}), python)
    chosen, left_out = [], {}
    for name in names:
        why = _why_not(name, model, gone, device)
        if why is None:
            chosen.append(name)
        elif wanted == "auto":
            left_out[name] = why
        else:
            raise ConfigError(f"{name} cannot be timed: {why}.")
    return chosen, left_out


def _why_not(name: str, model: str, gone: Sequence[str], device: str) -> str | None:
    if device != "cpu" and name not in contenders.ON_CUDA:
        return f"it is not timed on {device} here"
    missing = [module for module in contenders.CONTENDERS[name][0] if module in gone]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if name.startswith("openvino") and shutil.which("optimum-cli") is None:
        return "the command optimum-cli, which converts models for it, is not on the path"
    is_file = Path(model).suffix == ".gguf"
    if is_file != (name == "llama.cpp"):
        return "it takes a .gguf file" if name == "llama.cpp" else "it takes a folder, not a file"
    if not is_file:
        config = json.loads((Path(model) / "config.json").read_text())
        if "quantization_config" in config:
            return "the folder's weights are quantized for this engine"
    return None


def lacking(modules: list[str], python: str | None) -> list[str]:
    """Those of ``modules`` that an interpreter does not have; raises as :func:`choose_peers`."""
    command = [python or sys.executable, "-c", _ASK, json.dumps(modules)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"--peers-python {python} does not run: {error}") from None
    found: list[str] = json.loads(done.stdout)
    return found
