"""Tokens a second of one and many sequences, and of prompts, for several engines in turn.

::

    decoding, B sequences    B n / (time of n + 1 new tokens - time of 1)     after prompts of 32
    prompts                  tokens / time of 1 new token                     one prompt of 512

Every contender is a process of its own that waits while the others are timed; passes go over all of
them in turn, and medians over the passes count, so that a machine that slows down strikes all. The
roofline of decoding one sequence is memory: bandwidth measured beside, over the bytes of weights
that a token reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.serve.bench import contenders

__all__ = ["Entry", "Settings", "Throughput", "measure_throughput"]

_START_S = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured."""

    threads: int = 1
    """Of every engine."""

    device: str = "cpu"
    """Where they run."""

    batches: tuple[int, ...] = (1, 16)
    """Sequences that are decoded together."""

    new_tokens: int = 32
    """n."""

    prompt: int = 32
    """Tokens of a prompt when decoding is timed."""

    prefill: int = 512
    """Tokens of the prompt when prompts are timed."""

    passes: int = 3
    """Over all contenders."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        numbers = (self.threads, self.new_tokens, self.prompt, self.prefill, self.passes)
        if min(*numbers, *self.batches) < 1:
            raise ConfigError("threads, batches, tokens and passes must be at least 1.")


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is timed, on what."""

    kind: str
    """Of :data:`~sharpen.serve.bench.contenders.CONTENDERS`."""

    model: str
    """Folder in Hugging Face layout, or a ``.gguf`` file for ``llama.cpp``."""

    label: str = ""
    """Name of the row; default ``kind``."""

    @property
    def name(self) -> str:
        """Of the row."""
        return self.label or self.kind


@dataclass(slots=True, kw_only=True)
class Throughput:
    """A row of the table."""

    name: str
    """Of the contender."""

    weights: str
    """Their precision."""

    decode: dict[int, float] = field(default_factory=dict)
    """Tokens a second by batch, medians."""

    prefill: float | None = None
    """Prompt tokens a second, median."""

    spread: float = 0.0
    """Largest difference between passes, over the median."""

    peak_bytes: int = 0
    """Largest memory of its process."""

    error: str = ""
    """Why it has no figures."""


class _Contender:
    """The process of one engine."""

    def __init__(self, entry: Entry, settings: Settings, folder: Path, python: str) -> None:
        self.row = Throughput(name=entry.name, weights=contenders.CONTENDERS[entry.kind][1])
        log = folder / f"{entry.name.replace('/', '-')}.log"
        threads = str(settings.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        script, where = str(Path(contenders.__file__)), str(folder)
        command = [python, script, entry.kind, entry.model, threads, where, settings.device]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )
        self._log = log
        if self._read() is None:
            self.row.error = f"it did not start: {self._end()}"

    def seconds(self, batch: int, length: int, count: int) -> float | None:
        """Of one call; None when the engine cannot, and ``row.error`` tells why."""
        if self.row.error:
            return None
        assert self._process.stdin is not None
        answer = None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([batch, length, count]) + "\n")
            self._process.stdin.flush()
            answer = self._read()
        if answer is None:
            self.row.error = f"it ended: {self._end()}"
            return None
        self.row.peak_bytes = max(self.row.peak_bytes, int(answer["peak_bytes"]))
        if "error" in answer:
            return None
        if answer["tokens"] != batch * count:
            self.row.error = f"it made {answer['tokens']} tokens instead of {batch * count}"
            return None
        return float(answer["seconds"])

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _end(self) -> str:
        """What it died of."""
        code = self._process.wait()
        return signal.strsignal(-code) or f"signal {-code}" if code < 0 else _last_line(self._log)

    def _read(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return cast(dict[str, Any], json.loads(line)) if line else None


def measure_throughput(
    entries: Sequence[Entry],
    settings: Settings,
    folder: Path,
    *,
    python: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Throughput]:
    """Time contenders in turn.

    Args:
        entries: who, on what.
        settings: what is measured.
        folder: where engines put converted models, to be found again.
        python: interpreter of the contenders that are not ours; default this one.
        tell: is told what happens.

    Raises:
        ConfigError: an unknown contender.
        ExecutionError: none could be timed.
    """
    for entry in entries:
        if entry.kind not in contenders.CONTENDERS:
            raise ConfigError(
                f"there is no contender {entry.kind!r}. Known: {', '.join(contenders.CONTENDERS)}."
            )
    folder.mkdir(parents=True, exist_ok=True)
    made: list[_Contender] = []
    try:
        for entry in entries:
            tell(f"start {entry.name}")
            ours = entry.kind == "sharpen" or python is None
            interpreter = sys.executable if ours or python is None else python
            made.append(_Contender(entry, settings, folder, interpreter))
        samples = _passes(made, settings, tell)
    finally:
        for contender in made:
            contender.close()
    for contender in made:
        _fill(contender.row, samples[contender.row.name])
    rows = [contender.row for contender in made]
    if all(row.error for row in rows):
        raise ExecutionError("; ".join(f"{row.name}: {row.error}" for row in rows))
    return rows


Samples = dict[int, list[float]]
"""Tokens a second by batch; 0 for prompts."""


def _passes(
    made: Sequence[_Contender], settings: Settings, tell: Callable[[str], None]
) -> dict[str, Samples]:
    samples: dict[str, Samples] = {contender.row.name: {} for contender in made}
    for number in range(settings.passes + 1):  # the first one warms up
        tell(f"pass {number} of {settings.passes}" if number else "warm up")
        for contender in made:
            for batch, speed in _one_pass(contender, settings):
                if number:
                    samples[contender.row.name].setdefault(batch, []).append(speed)
    return samples


def _one_pass(contender: _Contender, settings: Settings) -> list[tuple[int, float]]:
    found = []
    n = settings.new_tokens
    for batch in settings.batches:
        contender.seconds(batch, settings.prompt, 1)  # wakes it
        short = contender.seconds(batch, settings.prompt, 1)
        long = contender.seconds(batch, settings.prompt, n + 1)
        if short is not None and long is not None and long > short:
            found.append((batch, batch * n / (long - short)))
    contender.seconds(1, settings.prefill, 1)
    prompt = contender.seconds(1, settings.prefill, 1)
    if prompt is not None:
        found.append((0, settings.prefill / prompt))
    return found


def _fill(row: Throughput, samples: Samples) -> None:
    for batch, speeds in samples.items():
        middle = statistics.median(speeds)
        row.spread = max(row.spread, (max(speeds) - min(speeds)) / middle)
        if batch:
            row.decode[batch] = middle
        else:
            row.prefill = middle
    if not samples and not row.error:
        row.error = "it answered no request"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"it left no word in {log}"
