"""What processes of tests/core/test_fork_server.py do; they import it."""

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

LOADED_BY = os.getpid()


def tell(argument: Any, descriptors: list[int]) -> int:
    """Write what this process is to the first descriptor."""
    own = {
        "argument": argument,
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "loaded_by": LOADED_BY,
        "folder": str(Path.cwd()),
        "variable": os.environ.get("FORKED"),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "input": sys.stdin.read(),
        "drawn": [random.random(), float(np.random.random())],
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "open": sorted(int(one.name) for one in Path("/proc/self/fd").iterdir()),
    }
    with os.fdopen(descriptors[0], "w") as file:
        json.dump(own, file)
    print("printed")
    return 5


def end(how: str, descriptors: list[int]) -> int:
    """End in some way."""
    if how == "raise":
        raise RuntimeError("on purpose")
    if how == "exit":
        sys.exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(600)
    return 0
