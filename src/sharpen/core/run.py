"""Runs: a recipe carried out in a folder, each stage's output addressed by what determines it.

::

    runs/<name>/
        recipe.yaml resolved.yaml environment.json plan.json metrics.jsonl summary.json report.html
        .store/<key>/   a finished output with its stage.json
        .work/<key>/    checkpoints of a stage under way; its key leaves out what may change
        <stage>         a relative link into .store
        .lock           held while a process writes here

A stage's key is the digest of its type, version, resolved config, seed, model and inputs. A stage
whose key is in the store is not run again, so a killed run goes on where it stopped. What may
change on the way, such as the number of processes, is no part of the key of a stage's work.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil

from sharpen._version import __version__
from sharpen.core.config import digest, read_json, to_dict
from sharpen.core.errors import (
    BusyError,
    ConfigError,
    Interrupted,
    OutOfMemoryError,
    SharpenError,
    storage_errors,
)
from sharpen.core.files import (
    FileLock,
    atomic_write_json,
    atomic_write_text,
    fsync_dir,
    fsync_tree,
    sha256_file,
)
from sharpen.core.fingerprint import environment, file_digests, model_fingerprint
from sharpen.core.metrics import MetricsLog, read_metrics
from sharpen.core.recipe import Recipe, StageSpec, load_recipe
from sharpen.core.run_folder import Run, Summary
from sharpen.core.stage import (
    Artifact,
    Prediction,
    RunView,
    StageContext,
    StageResult,
    is_registered_here,
)
from sharpen.core.stage_worker import run_in_worker, run_stage

__all__ = ["RunObserver", "predict", "run"]

_log = logging.getLogger(__name__)
_MEASURED = "measured."


class RunObserver(Protocol):
    """What a run tells while it goes on; a progress display implements it."""

    def stage_started(self, name: str, number: int, total: int) -> None:
        """Stage ``number`` of ``total`` begins."""

    def stage_finished(self, name: str, result: Mapping[str, Any], reused: bool) -> None:
        """A stage is done, or was found done (``reused``)."""

    def event(self, name: str, event: Mapping[str, Any]) -> None:
        """What the stage ``name`` tells: ``begin``, ``advance`` or ``end`` of progress, ``metric``.

        An exception raised here ends the stage and the run; what is done is kept.
        """


class _Quiet:
    def stage_started(self, name: str, number: int, total: int) -> None:
        _log.info("stage %s (%d of %d)", name, number, total)

    def stage_finished(self, name: str, result: Mapping[str, Any], reused: bool) -> None:
        _log.info("stage %s %s", name, "reused" if reused else "done")

    def event(self, name: str, event: Mapping[str, Any]) -> None:
        return None


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    output: str | Path | None = None,
    until: str | None = None,
    force: bool = False,
    store: Path | None = None,
    observer: RunObserver | None = None,
) -> Run:
    """Carry out a recipe; stages already done with the same inputs are not run again.

    Args:
        recipe: a YAML file, the same as plain data, or a loaded recipe.
        overrides: ``["train.lr=3e-4"]`` or ``{"train.lr": 3e-4}``.
        output: the run folder; default ``runs/<name>``.
        until: name of the last stage to run; default all.
        force: run even when the plan says that memory does not suffice.
        store: folder of finished outputs; default ``<output>/.store``.
        observer: is told of progress.

    Returns:
        The run; ``.summary["eval.loss_after"]``, ``.artifact("train")``, ``.report``.

    Raises:
        ConfigError: the recipe is wrong.
        BusyError: another process writes this folder.
        OutOfMemoryError: the plan says that a stage does not fit; ``force`` runs it all the same.
        SharpenError: what a stage raised.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if until is not None:
        loaded.stage(until)
    predictions = predict(loaded)  # what is wrong is said before anything is written
    folder = Path(output) if output is not None else Path("runs") / loaded.name
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"the run folder {folder} is a file; choose another with --output.")
    with storage_errors(folder, doing="create"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", f"the run folder {folder}")
    with lock:
        runner = _Runner(loaded, folder, store, observer or _Quiet(), lock, predictions)
        return runner.carry_out(until, force)


def predict(recipe: Recipe, *, device: Any = None) -> dict[str, Prediction]:
    """Memory and time of each stage that can foresee them, by stage name."""
    found: dict[str, Prediction] = {}
    for spec in recipe.stages:
        if spec.type.predict is not None:
            prediction = spec.type.predict(spec.config, recipe.context(spec, device))
            found[spec.name] = _named(prediction, spec.name)
    return found


def _named(prediction: Prediction, name: str) -> Prediction:
    return Prediction(**{**{k: getattr(prediction, k) for k in _PREDICTION}, "stage": name})


_PREDICTION = tuple(Prediction.__dataclass_fields__)


class _Runner:
    """One carrying-out of a recipe in a locked folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        store: Path | None,
        observer: RunObserver,
        lock: FileLock,
        predictions: dict[str, Prediction],
    ) -> None:
        self.recipe = recipe
        self.folder = folder.absolute()
        self.store = (store or folder / ".store").absolute()
        self.work = self.folder / ".work"
        self.observer = observer
        self.lock = lock
        self.log = MetricsLog(self.folder / "metrics.jsonl")
        self.summary = Summary()
        self.artifacts: dict[str, Artifact] = {}
        self.predictions = predictions
        self.reused: list[str] = []
        self._model_print: str | None = None

    def carry_out(self, until: str | None, force: bool) -> Run:
        for spec in self.recipe.stages:
            link = self.folder / spec.name
            if spec.type.addressed and link.exists() and not link.is_symlink():
                raise BusyError(
                    f"{link} is in the way of the link to the stage's output. Move it, or choose "
                    "another folder with --output."
                )
        self.store.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)
        self._sweep()
        if self.recipe.source:
            atomic_write_text(self.folder / "recipe.yaml", self.recipe.source)
        atomic_write_text(self.folder / "resolved.yaml", self.recipe.resolved())
        atomic_write_json(self.folder / "environment.json", environment())
        self._plan(force)
        names = [spec.name for spec in self.recipe.stages]
        last = names.index(until) if until is not None else len(names) - 1
        for number, spec in enumerate(self.recipe.stages[: last + 1], start=1):
            self.observer.stage_started(spec.name, number, last + 1)
            self._stage(spec)
            self._write_summary()
        if until is None:
            shutil.rmtree(self.work, ignore_errors=True)  # checkpoints of configs since changed
        return Run(folder=self.folder, summary=self.summary, reused=self.reused)

    def _sweep(self) -> None:
        """Remove what a killed process left half-done."""
        for leftover in (*self.folder.glob(".*.tmp"), *self.work.glob("*/.output")):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
        known = {spec.name for spec in self.recipe.stages}
        for link in self.folder.iterdir():
            if link.is_symlink() and link.name not in known:
                link.unlink()

    def _plan(self, force: bool) -> None:
        available = psutil.virtual_memory().total
        plan = {name: to_dict(p) for name, p in self.predictions.items()}
        atomic_write_json(self.folder / "plan.json", {"memory_bytes": available, "stages": plan})
        for name, prediction in self.predictions.items():
            if prediction.peak_bytes > available and not force:
                remedies = "; ".join(prediction.remedies) or "choose a smaller model or batch"
                raise OutOfMemoryError(
                    f"the stage '{name}' is planned to need {prediction.peak_bytes / 2**30:.2f} "
                    f"GiB and this machine has {available / 2**30:.2f} GiB. To lower it: "
                    f"{remedies}. Run it all the same with --force."
                )

    def _stage(self, spec: StageSpec) -> None:
        if not spec.type.addressed:
            start = time.perf_counter()
            result = self._unaddressed(spec)
            took = {"time_s": time.perf_counter() - start}
            self.observer.stage_finished(
                spec.name, {**took, **result.results, **result.measured}, False
            )
            return
        inputs = {kind: self.artifacts[name] for kind, name in spec.inputs.items()}
        key = self._key(spec, inputs)
        made = self._find(spec, key)
        reused = made is not None
        if made is None:
            made = self._make(spec, key, inputs, self._key(spec, inputs, spec.type.may_change))
        else:
            self.reused.append(spec.name)
        self.artifacts[spec.name] = made
        self._link(spec.name, key)
        self.summary[spec.name] = _merge(made.results, self._measured(spec.name))
        self.observer.stage_finished(spec.name, self.summary[spec.name], reused)

    def _key(
        self, spec: StageSpec, inputs: Mapping[str, Artifact], left_out: tuple[str, ...] = ()
    ) -> str:
        fingerprint = None
        if spec.type.fingerprint is not None:
            fingerprint = spec.type.fingerprint(spec.config, self.recipe.context(spec))
        if spec.type.needs_model and self._model_print is None:
            assert self.recipe.model is not None
            self._model_print = model_fingerprint(self.recipe.model)
        config = {k: v for k, v in to_dict(spec.config).items() if k not in left_out}
        return digest(
            {
                "type": spec.type.name,
                "version": spec.type.version,
                "config": config,
                "seed": spec.seed,
                "model": self._model_print if spec.type.needs_model else None,
                "inputs": {kind: artifact.key for kind, artifact in inputs.items()},
                "fingerprint": fingerprint,
            }
        )

    def _find(self, spec: StageSpec, key: str) -> Artifact | None:
        """The finished output under ``key``, if its bytes are still what was written."""
        folder = self.store / key
        record_path = folder / "stage.json"
        if not record_path.exists():
            return None
        try:
            record = read_json(record_path, "stage record")
            whole = record["key"] == key and all(
                (folder / name).is_file() and sha256_file(folder / name) == sha256
                for name, sha256 in record["files"].items()
            )
        except (SharpenError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            _log.warning("the stored output of stage '%s' is damaged; making it again", spec.name)
            shutil.rmtree(folder)
            return None
        return Artifact(
            kind=record["kind"],
            path=folder,
            stage=spec.name,
            key=key,
            results=record["results"],
        )

    def _make(
        self, spec: StageSpec, key: str, inputs: Mapping[str, Artifact], work_key: str
    ) -> Artifact:
        work = self.work / work_key
        resumed = work.exists()
        work.mkdir(exist_ok=True)
        output = work / ".output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        # A stage that goes on keeps its curve; what it measured at its end it will measure again.
        self.log.rewind(spec.name, math.inf if resumed else None)
        context = StageContext(
            stage=spec.name,
            seed=spec.seed,
            model=self.recipe.model,
            inputs=inputs,
            output=output,
            work=work,
            folder=self.recipe.folder,
            run_folder=self.folder,
        )
        try:
            result = self._execute(spec, context)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted in the stage '{spec.name}'; what is done is kept. "
                "Run the same command again to resume."
            ) from None
        kind = spec.type.kind(spec.config)
        record = {
            "key": key,
            "type": spec.type.name,
            "version": spec.type.version,
            "kind": kind,
            "config": to_dict(spec.config),
            "seed": spec.seed,
            "inputs": {k: artifact.key for k, artifact in inputs.items()},
            "files": file_digests(output),
            "results": to_dict(result.results),
        }
        # Measurements first: once the output is in the store the stage will not run again.
        for name, value in Summary(to_dict(result.measured)).flat().items():
            if isinstance(value, (int, float)):
                self.log.append(spec.name, _MEASURED + name, float(value))
        atomic_write_json(output / "stage.json", record)
        with storage_errors(self.store):
            fsync_tree(output)
            try:
                output.replace(self.store / key)
            except OSError:
                # Another run that shares the store may have finished the same stage first.
                if not (self.store / key / "stage.json").exists():
                    raise
            fsync_dir(self.store)
        shutil.rmtree(work, ignore_errors=True)
        return Artifact(
            kind=kind,
            path=self.store / key,
            stage=spec.name,
            key=key,
            results=record["results"],
        )

    def _execute(self, spec: StageSpec, context: StageContext) -> StageResult:
        if is_registered_here(spec.type.name):
            context.on_metric = lambda name, value, step: self._measure(
                spec.name, name, value, step
            )
            context.on_rewind = lambda step: self.log.rewind(spec.name, step)
            return run_stage(spec.type, spec.config, context)
        return run_in_worker(
            spec.type,
            spec.config,
            context,
            metrics=self.log.path,
            inherit=(self.lock.fileno(),),
            on_progress=lambda event: self.observer.event(spec.name, event),
        )

    def _measure(self, stage: str, name: str, value: float, step: int | None) -> None:
        self.log.append(stage, name, value, step)
        event = {"event": "metric", "name": name, "value": value, "step": step}
        self.observer.event(stage, event)

    def _unaddressed(self, spec: StageSpec) -> StageResult:
        self._write_summary()
        context = StageContext(
            stage=spec.name,
            seed=spec.seed,
            model=self.recipe.model,
            inputs={},
            output=self.folder,
            work=self.work,
            folder=self.recipe.folder,
            run=RunView(
                name=self.recipe.name,
                summary=self.summary,
                predictions=self.predictions,
                stage_types={s.name: s.type for s in self.recipe.stages},
                metrics=read_metrics(self.log.path),
            ),
        )
        return spec.type.run(spec.config, context)

    def _measured(self, stage: str) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for row in read_metrics(self.log.path):
            name = str(row["name"])
            if row.get("stage") == stage and name.startswith(_MEASURED):
                node = nested
                *parents, leaf = name.removeprefix(_MEASURED).split(".")
                for parent in parents:
                    node = node.setdefault(parent, {})
                node[leaf] = row["value"]
        return nested

    def _link(self, name: str, key: str) -> None:
        link = self.folder / name
        target = os.path.relpath(self.store / key, self.folder)
        if link.is_symlink() and str(link.readlink()) == target:
            return
        temporary = self.folder / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)

    def _write_summary(self) -> None:
        if self.predictions:
            self.summary["plan"] = plan_errors(self.predictions, self.summary)
        self.summary["run"] = {"name": self.recipe.name, "sharpen": __version__}
        atomic_write_json(self.folder / "summary.json", json.loads(_finite(self.summary)))


def _finite(value: Mapping[str, Any]) -> str:
    """JSON text with NaN and infinities as null."""

    def clean(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {k: clean(v) for k, v in node.items()}
        if isinstance(node, (list, tuple)):
            return [clean(v) for v in node]
        if isinstance(node, float) and (node != node or node in (float("inf"), -float("inf"))):
            return None
        return node

    return json.dumps(clean(value))


def plan_errors(
    predictions: Mapping[str, Prediction], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Foreseen against measured, by stage; errors are relative: |foreseen - measured| / measured.

    ``memory_error`` and ``time_error`` at the top are the largest of all stages.
    """
    plan: dict[str, Any] = {}
    worst: dict[str, float] = {}
    for name, prediction in predictions.items():
        measured = summary.get(name, {})
        row: dict[str, Any] = {"peak_bytes": prediction.peak_bytes}
        pairs: list[tuple[str, float, float | None]] = [
            ("memory_error", prediction.peak_bytes, measured.get("peak_bytes"))
        ]
        if prediction.step_s is not None:
            row["step_s"] = prediction.step_s
            pairs.append(("time_error", prediction.step_s, measured.get("step_s")))
        if prediction.time_s is not None:
            row["time_s"] = prediction.time_s
        row |= {k: v for k, v in prediction.details.items() if k in ("tokens_per_s", "mfu")}
        for key, foreseen, seen in pairs:
            if seen:
                row[key] = abs(foreseen - seen) / seen
                worst[key] = max(worst.get(key, 0.0), row[key])
        plan[name] = row
    return {**plan, **worst}


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
