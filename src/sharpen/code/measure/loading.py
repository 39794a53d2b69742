"""Inside of a process that is asked things: load the program that comes over its socket."""

from __future__ import annotations

import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.core.sandbox.inside.channel import receive, send
from sharpen.core.sandbox.inside.linux import die_with_parent

__all__ = ["Loaded", "load", "loaded"]

Loaded = tuple[socket.socket, Callable[..., Any], Mapping[str, Any]]
"""The socket, the function, and the program that came."""


class Missing(Exception):
    """The program has no such function."""


def load(program: dict[str, Any]) -> Callable[..., Any]:
    """The function of a program: its source is run as a module of its name, or imported."""
    sys.path[:0] = program["path"]
    name = program["module"]
    module = types.ModuleType(name)
    module.__file__ = program["file"]
    package, _, _ = name.rpartition(".")
    module.__package__ = package
    if package:
        __import__(package)
    sys.modules[name] = module
    exec(compile(program["source"], program["file"], "exec", dont_inherit=True), module.__dict__)
    found: Any = module
    for part in program["entry"].split("."):
        if not hasattr(found, part):
            raise Missing
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def loaded(fd: int) -> Loaded | None:
    """The program that comes over a socket; None where it does not load, which is said.

    What it prints is not asked for: the standard streams are closed to it.
    """
    die_with_parent(signal.SIGKILL)
    channel = socket.socket(fileno=fd)
    program, _ = receive(channel)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    try:
        return channel, load(program), program
    except Missing:
        send(channel, {"missing": True})
    except BaseException as error:
        send(channel, {"error": f"{type(error).__name__}: {error}"})
    return None
