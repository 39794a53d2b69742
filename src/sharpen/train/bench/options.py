"""Which training options pay on this machine: short real runs of a recipe, one option changed.

Zhang et al., Dissecting the Runtime Performance of the Training, Fine-tuning, and Inference of
Large Language Models, 2023 (arXiv 2311.03687): the same job with each option on its own. A cell is
the recipe with one or more overrides; it runs through the same driver and trainer as any run, in
processes of its own. Cells are run in turn, round after round (A B C A B C), and compared with the
recipe as it is within each round, so that a machine that slows down strikes all of them; medians
over the rounds count. A cell that does not fit or fails is a result too.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpen.core.config import read_json, to_dict
from sharpen.core.errors import (
    ConfigError,
    ExecutionError,
    Interrupted,
    OutOfMemoryError,
    SharpenError,
)
from sharpen.core.recipe import Recipe, StageSpec, load_recipe
from sharpen.core.report import Chart, Section, Series, Table, Text
from sharpen.core.run import run
from sharpen.train.config import TrainConfig

__all__ = ["Cell", "OptionBench", "OptionTimes", "bench_options", "default_cells", "findings"]

_NOISE = 0.05  # of the time; what differs by less is no difference
_SAVED = 0.03  # of the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionBench:
    """How to measure."""

    steps: int = 4
    """Optimizer steps of a run; the first is not counted."""

    rounds: int = 2
    """Runs of each cell."""

    nproc: int = 1
    """Processes; above 1 their options are cells too: ZeRO stages and sequence parallelism."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 2 or self.rounds < 1 or self.nproc < 1:
            raise ConfigError(
                f"steps={self.steps} must be at least 2, rounds={self.rounds} and nproc="
                f"{self.nproc} at least 1."
            )


@dataclass(slots=True, kw_only=True)
class Cell:
    """One setting of the options, and what it took."""

    name: str
    """What differs from the recipe; ``as it is`` for the recipe."""

    overrides: tuple[str, ...] = ()
    """The same as overrides of the recipe."""

    status: str = "ok"
    """``ok``, ``out of memory`` or ``failed``."""

    message: str = ""
    """Why it is not ok."""

    step_s: list[float] = field(default_factory=list)
    """Median seconds of a step, a value each round."""

    tokens_per_s: float | None = None
    """Tokens a second, median."""

    mfu: float | None = None
    """Model FLOPs over the machine's peak, no causal discount, recomputation not counted."""

    peak_bytes: int | None = None
    """Highest resident memory of a training process."""

    planned_bytes: int | None = None
    """The same, as planned."""

    planned_step_s: float | None = None
    """Seconds of a step, as planned."""

    @property
    def seconds(self) -> float | None:
        """Median over the rounds."""
        return statistics.median(self.step_s) if self.step_s else None


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionTimes:
    """All cells of a recipe."""

    recipe: str
    """Its name."""

    config: OptionBench
    """How it was measured."""

    cells: tuple[Cell, ...]
    """The recipe as it is, then the others."""

    findings: tuple[str, ...]
    """What pays, in words, best first."""

    load: float
    """Load average when it began."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``sharpen bench train --json`` prints it."""
        cells = [{**to_dict(cell), "seconds": cell.seconds} for cell in self.cells]
        return {**to_dict(self), "cells": cells}

    def _row(self, cell: Cell) -> list[Any]:
        seconds, base = cell.seconds, self.cells[0].seconds
        return [
            cell.name,
            cell.status,
            seconds,
            base / seconds if seconds and base else None,
            cell.tokens_per_s,
            cell.mfu,
            _gib(cell.peak_bytes),
            _gib(cell.planned_bytes),
        ]

    def table(self) -> str:
        """Cells and findings as text."""
        width = max(24, *(len(cell.name) + 2 for cell in self.cells))
        head = f"{'option':<{width}}{'step':>10}{'speed':>8}{'tokens/s':>10}{'MFU':>7}"
        lines = [
            f"{self.recipe}: {self.config.steps} steps, {self.config.rounds} rounds",
            "",
            f"{head}{'peak':>10}{'planned':>10}",
        ]
        for cell in self.cells:
            name, status, seconds, speed, tokens, mfu, peak, planned = self._row(cell)
            if seconds is None:
                lines.append(f"{name:<{width}}{status}: {cell.message.splitlines()[0]}")
                continue
            share = f"{mfu:.0%}" if mfu is not None else "-"
            lines.append(
                f"{name:<{width}}{seconds * 1e3:>7.0f} ms{speed or 1.0:>6.2f} x{tokens or 0:>10.0f}"
                f"{share:>7}{peak or 0:>6.2f} GiB{planned or 0:>6.2f} GiB"
            )
        return "\n".join([*lines, "", *self.findings])

    def sections(self) -> list[Section]:
        """The same for the report writer, with charts."""
        columns = ("option", "status", "step s", "speed", "tokens/s", "MFU", "peak GiB", "planned")
        done = [cell for cell in self.cells if cell.seconds]
        names = [cell.name for cell in done]
        times = Series("step", names, [cell.seconds or 0.0 for cell in done])
        memory = [
            Series("measured", names, [_gib(cell.peak_bytes) or 0.0 for cell in done]),
            Series("planned", names, [_gib(cell.planned_bytes) or 0.0 for cell in done]),
        ]
        return [
            Section(
                "Options",
                [
                    *(Text(sentence) for sentence in self.findings),
                    Chart("Step time", [times], "option", "seconds", kind="bar"),
                    Chart("Peak memory", memory, "option", "GiB", kind="bar"),
                    Table(columns, [self._row(cell) for cell in self.cells]),
                ],
            )
        ]


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"


def _gib(size: int | None) -> float | None:
    return size / 2**30 if size is not None else None


def train_stage(recipe: Recipe) -> StageSpec:
    """The recipe's last training stage.

    Raises:
        ConfigError: it has none.
    """
    stages = [spec for spec in recipe.stages if spec.type.name == "train"]
    if not stages:
        raise ConfigError(f"the recipe '{recipe.name}' has no stage of type 'train'. Add 'train:'.")
    return stages[-1]


def default_cells(
    recipe: str | Path | Mapping[str, Any], overrides: Iterable[str] = (), *, nproc: int = 1
) -> list[Cell]:
    """The options that matter, each changed on its own; those the recipe cannot take are left out.

    Args:
        recipe: a YAML file, or the same as plain data.
        overrides: held for all cells.
        nproc: processes; above 1, their options too.
    """
    given = list(overrides)
    stage = train_stage(load_recipe(recipe, given))
    config: TrainConfig = stage.config
    changes: list[tuple[str, ...]] = []
    changes += [(f"dtype={x}",) for x in ("float32", "bfloat16") if x != config.dtype]
    modes = ("none", "selective", "full")
    changes += [(f"act.mode={x}",) for x in modes if x != config.act.mode]
    if config.act.tiled_mlp == 0:
        changes.append(("act.tiled_mlp=auto",))
    changes.append((f"micro_batch={2 * config.micro_batch}",))
    if config.micro_batch > 1:
        changes.append((f"micro_batch={config.micro_batch // 2}",))
    changes += [(f"method={x}",) for x in ("full", "lora", "qlora") if x != config.method]
    if nproc > 1:
        changes += [(f"nproc={nproc}", f"parallel.zero_stage={zero}") for zero in range(4)]
        changes.append((f"nproc={nproc}", f"parallel.sp={nproc}", "parallel.zero_stage=3"))
    cells = []
    for one in changes:
        changed = tuple(f"{stage.name}.{change}" for change in one)
        try:
            load_recipe(recipe, [*given, *changed])
        except ConfigError:
            continue
        cells.append(Cell(name=", ".join(one), overrides=changed))
    return cells


def bench_options(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    cells: Sequence[Cell] | None = None,
    config: OptionBench | None = None,
    on_cell: Callable[[Cell, int], None] | None = None,
) -> OptionTimes:
    """Measure options of a recipe's training by short real runs.

    Args:
        recipe: a YAML file, or the same as plain data.
        overrides: held for all cells: ``["train.global_batch=4"]``.
        cells: what to compare with the recipe; default :func:`default_cells`.
        config: steps, rounds, processes.
        on_cell: told of a cell and the round's number before it runs.

    Raises:
        ConfigError: the recipe, or a cell, is wrong.
    """
    config = config or OptionBench()
    given = list(overrides)
    loaded = load_recipe(recipe, given)
    stage = train_stage(loaded)
    # Long enough apart that no checkpoint is written between the timed steps.
    held = [f"{stage.name}.steps={config.steps}", f"{stage.name}.epochs=null"]
    held += [f"{stage.name}.checkpoint.every=1000000", f"{stage.name}.checkpoint.every_s=1e6"]
    given += held
    loaded = load_recipe(recipe, given)
    chosen = list(cells) if cells is not None else default_cells(recipe, given, nproc=config.nproc)
    every = [Cell(name="as it is"), *chosen]
    for cell in every:
        load_recipe(recipe, [*given, *cell.overrides])
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="sharpen-bench-") as name:
        for number in range(config.rounds):
            for cell in every:
                if cell.status == "ok":
                    if on_cell is not None:
                        on_cell(cell, number)
                    _measure(recipe, [*given, *cell.overrides], cell, stage.name, Path(name))
    for cell in every:
        if cell.status != "ok":
            cell.step_s.clear()
    if every[0].status != "ok":
        kind = OutOfMemoryError if every[0].status == "out of memory" else ExecutionError
        raise kind(f"the recipe as it is: {every[0].status}: {every[0].message}")
    return OptionTimes(
        recipe=loaded.name,
        config=config,
        cells=tuple(every),
        findings=tuple(findings(every[0], every[1:])),
        load=load,
    )


def _measure(
    recipe: str | Path | Mapping[str, Any],
    overrides: list[str],
    cell: Cell,
    stage: str,
    folder: Path,
) -> None:
    """One run of a cell; data sets are shared by all of them, weights are dropped at once."""
    output = folder / "run"
    try:
        done = run(recipe, overrides, output=output, until=stage, store=folder / "store")
    except Interrupted:
        raise
    except OutOfMemoryError as error:
        cell.status, cell.message = "out of memory", str(error)
    except SharpenError as error:
        cell.status, cell.message = "failed", str(error)
    else:
        measured = done.summary[stage]
        plan = _planned(output, stage)
        cell.step_s.append(measured["step_s"])
        cell.tokens_per_s, cell.mfu = measured["tokens_per_s"], measured.get("mfu")
        cell.peak_bytes = max(cell.peak_bytes or 0, measured["peak_bytes"])
        cell.planned_bytes, cell.planned_step_s = plan.get("peak_bytes"), plan.get("step_s")
        shutil.rmtree(done.artifact(stage).resolve())
    shutil.rmtree(output, ignore_errors=True)


def _planned(output: Path, stage: str) -> dict[str, Any]:
    stages: dict[str, dict[str, Any]] = read_json(output / "plan.json", "plan")["stages"]
    return stages.get(stage, {})


def findings(base: Cell, cells: Sequence[Cell]) -> list[str]:
    """What each option brings, in words: those that pay first, then trades, then the rest.

    Args:
        base: the recipe as it is.
        cells: the others.
    """
    ranked: list[tuple[int, float, str]] = []
    for cell in cells:
        if not cell.step_s or not base.step_s:
            ranked.append((3, 0.0, f"{cell.name}: {cell.status}."))
            continue
        times = [b / c for b, c in zip(base.step_s, cell.step_s, strict=False)]
        speed = statistics.median(times)
        saved = (base.peak_bytes or 0) - (cell.peak_bytes or 0)
        shown = _size(abs(saved))
        saves = saved > _SAVED * (base.peak_bytes or 0)
        costs = -saved > _SAVED * (base.peak_bytes or 0)
        # In every round, and by more than noise.
        faster = min(times) > 1 and speed > 1 + _NOISE
        slower = max(times) < 1 and speed < 1 - _NOISE
        if faster:
            memory = f" and saves {shown}" if saves else f" for {shown} more" if costs else ""
            ranked.append((0, -speed, f"{cell.name} pays: {speed:.2f} x as fast{memory}."))
        elif saves:
            price = f"for {1 / speed - 1:.0%} more time" if slower else "at no cost in time"
            ranked.append((1, -saved, f"{cell.name} saves {shown} {price}."))
        elif slower or costs:
            loss = f"{1 / speed - 1:.0%} more time" if slower else "no gain in time"
            memory = f", {shown} more memory" if costs else ""
            ranked.append((2, speed, f"{cell.name} does not pay: {loss}{memory}."))
        else:
            ranked.append((2, speed, f"{cell.name} makes no difference beyond noise."))
    return [sentence for _, _, sentence in sorted(ranked)]
