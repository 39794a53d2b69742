"""Signs of life: each rank says every few seconds that it lives and which step it has done.

A thread writes them, so they go on while the rank waits for others, and stop when the process is
killed, stopped (SIGSTOP) or starved. A rank that lives without getting on is asked for its stack
(SIGUSR1): who waits in a collective operation waits for somebody else.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sharpen.train.trainer import StepReport, Trainer

__all__ = ["Heartbeat", "Pulse", "read_pulse", "read_stack"]


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a rank last said."""

    age_s: float
    """Seconds since."""

    step: int
    """Optimizer steps it had done; -1 while it starts."""


class Heartbeat:
    """A rank's signs of life; also a callback of the trainer.

    Args:
        folder: shared with the driver.
        rank: of this process.
        every_s: seconds between two signs.
    """

    def __init__(self, folder: Path, rank: int, every_s: float) -> None:
        self._path = folder / f"pulse-{rank}"
        self._step = -1
        self._stack = (folder / f"stack-{rank}").open("w")
        faulthandler.register(signal.SIGUSR1, file=self._stack, all_threads=False)
        self._beat()
        threading.Thread(target=self._run, args=(every_s,), name="heartbeat", daemon=True).start()

    def on_start(self, trainer: Trainer) -> None:
        """The step that training starts from."""
        self._step = trainer.step

    def on_step(self, trainer: Trainer, report: StepReport) -> None:
        """One step more."""
        self._step = report.step

    def _run(self, every_s: float) -> None:
        while True:
            time.sleep(every_s)
            self._beat()

    def _beat(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({"step": self._step}))
        temporary.replace(self._path)


def read_pulse(folder: Path, rank: int) -> Pulse | None:
    """A rank's last sign of life; None before the first."""
    path = folder / f"pulse-{rank}"
    try:
        return Pulse(time.time() - path.stat().st_mtime, json.loads(path.read_text())["step"])
    except FileNotFoundError:
        return None


def read_stack(folder: Path, rank: int, pid: int, *, wait_s: float = 1.0) -> str:
    """Ask a rank where it is: its Python stack, innermost first; empty if it does not answer."""
    path = folder / f"stack-{rank}"
    before = path.stat().st_size if path.exists() else 0
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if path.exists() and path.stat().st_size > before:
            time.sleep(0.05)
            return path.read_text()[before:]
    return ""
