"""One stage in a process of its own: so its memory and time are its own, and a crash is contained.

The process is forked from a server that has loaded what the stage needs, so that a recipe loads it
once (:mod:`~sharpen.core.fork_server`). The parent gives it one request and reads JSON lines from a
pipe: progress and measurements, then ``result`` or ``error``. Standard output goes to standard
error. When the parent dies this process is killed, so no two processes ever write one work folder.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sharpen.core.errors as errors
from sharpen.core.config import from_dict, to_dict
from sharpen.core.errors import ExecutionError, OutOfMemoryError, SharpenError, StorageError
from sharpen.core.fork_server import ForkedProcess, start_process
from sharpen.core.huge_pages import worker_environment
from sharpen.core.metrics import MetricsLog, peak_rss_bytes
from sharpen.core.stage import Artifact, StageContext, StageResult, StageType, find_stage_type

__all__ = ["run_in_worker", "run_stage"]


def run_stage(stage_type: StageType, config: Any, context: StageContext) -> StageResult:
    """Run a stage here, adding ``time_s`` and ``peak_bytes`` to what it measured."""
    start = time.perf_counter()
    result = stage_type.run(config, context)
    measured = {
        "time_s": time.perf_counter() - start,
        "peak_bytes": peak_rss_bytes(),
        **result.measured,
    }
    return StageResult(results=result.results, measured=measured)


def run_in_worker(
    stage_type: StageType,
    config: Any,
    context: StageContext,
    *,
    metrics: Path,
    inherit: tuple[int, ...] = (),
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> StageResult:
    """Run a stage in a new process and wait for it.

    Args:
        stage_type: a type that the new process finds by its entry point.
        config: its config.
        context: where and with what; the callbacks in it are not used.
        metrics: the run's ``metrics.jsonl``.
        inherit: file descriptors to keep open in the child, such as the run's lock.
        on_progress: called with each event of progress, and with each measurement; what it raises
            ends the stage.

    Raises:
        SharpenError: what the stage raised, of the same class.
        OutOfMemoryError: the kernel killed it.
        ExecutionError: it died, or raised a foreign exception (its traceback is in the message).
    """
    reader, writer = os.pipe()
    request = {
        "type": stage_type.name,
        "config": to_dict(config),
        "stage": context.stage,
        "seed": context.seed,
        "model": context.model,
        "inputs": {kind: to_dict(artifact) for kind, artifact in context.inputs.items()},
        "output": str(context.output),
        "work": str(context.work),
        "folder": str(context.folder) if context.folder else None,
        "run_folder": str(context.run_folder) if context.run_folder else None,
        "metrics": str(metrics),
        "log_level": logging.getLogger("sharpen").getEffectiveLevel(),
    }
    try:
        process = start_process(
            f"{__name__}:work",
            request,
            descriptors=(writer, *inherit),
            output=sys.stderr.fileno() if _has_fileno(sys.stderr) else None,
            preload=(__name__, *stage_type.loads),
            environment=worker_environment(),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    final: dict[str, Any] | None = None
    try:
        with os.fdopen(reader, "rb") as events:
            for line in events:
                event = json.loads(line)
                if event["event"] in ("result", "error"):
                    final = event
                elif on_progress is not None:
                    on_progress(event)
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    if final is None:
        raise _death(context.stage, code)
    if final["event"] == "error":
        raise _rebuild(final)
    return StageResult(results=final["results"], measured=final["measured"])


def _has_fileno(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _end(process: ForkedProcess) -> None:
    """Stop the child: politely, then for good."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _death(stage: str, code: int) -> SharpenError:
    if code == -signal.SIGKILL:
        return OutOfMemoryError(
            f"the stage '{stage}' was killed by the system, most likely for want of memory. "
            "'sharpen plan RECIPE' shows what takes the memory and what lowers it; "
            "run the same command again to resume."
        )
    if code < 0:
        return ExecutionError(
            f"the stage '{stage}' died of signal {signal.Signals(-code).name}. "
            "Run the same command again to resume; with --debug to see more."
        )
    return ExecutionError(f"the stage '{stage}' ended with exit code {code} and no result.")


def _rebuild(event: Mapping[str, Any]) -> SharpenError:
    """The child's error, as the class it was."""
    kind = getattr(errors, event["class"], None)
    if isinstance(kind, type) and issubclass(kind, SharpenError):
        return kind(event["message"])
    return ExecutionError(event["message"])


class _Bar:
    """Progress in the child, sent to the parent at most ten times a second."""

    def __init__(self, emit: Callable[[dict[str, Any]], None], name: str) -> None:
        self._emit = emit
        self._name = name
        self._pending = 0.0
        self._last = 0.0
        self._fields: dict[str, Any] = {}

    def advance(self, n: float = 1, **fields: Any) -> None:
        self._pending += n
        self._fields.update(fields)
        if time.monotonic() - self._last >= 0.1:
            self.flush()

    def flush(self) -> None:
        self._emit(
            {"event": "advance", "name": self._name, "n": self._pending, "fields": self._fields}
        )
        self._pending, self._fields, self._last = 0.0, {}, time.monotonic()


@dataclass
class _Channel:
    """The pipe to the parent."""

    handle: int

    def emit(self, event: dict[str, Any]) -> None:
        data = (json.dumps(event, default=str) + "\n").encode()
        try:
            while data:
                data = data[os.write(self.handle, data) :]
        except BrokenPipeError:  # the parent is dead, and the kernel about to kill this process
            os._exit(1)

    @contextmanager
    def progress(self, description: str, total: float | None) -> Iterator[_Bar]:
        self.emit({"event": "begin", "name": description, "total": total})
        bar = _Bar(self.emit, description)
        try:
            yield bar
        finally:
            bar.flush()
            self.emit({"event": "end", "name": description})


def work(request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    """What the child process does; the first descriptor is the pipe to the parent."""
    channel = _Channel(descriptors[0])
    logging.basicConfig(level=request["log_level"], format="%(levelname)s %(name)s: %(message)s")
    log, stage = MetricsLog(Path(request["metrics"])), request["stage"]

    def measure(name: str, value: float, step: int | None) -> None:
        log.append(stage, name, value, step)
        channel.emit({"event": "metric", "name": name, "value": value, "step": step})

    try:
        stage_type = find_stage_type(request["type"])
        config: Any = from_dict(stage_type.config, request["config"], path=(stage,))
        context = StageContext(
            stage=stage,
            seed=request["seed"],
            model=request["model"],
            inputs={
                kind: Artifact(**{**data, "path": Path(data["path"])})
                for kind, data in request["inputs"].items()
            },
            output=Path(request["output"]),
            work=Path(request["work"]),
            folder=Path(request["folder"]) if request["folder"] else None,
            run_folder=Path(request["run_folder"]) if request["run_folder"] else None,
            on_metric=measure,
            on_rewind=lambda step: log.rewind(stage, step),
            on_progress=channel.progress,
        )
        result = run_stage(stage_type, config, context)
        channel.emit(
            {
                "event": "result",
                "results": to_dict(result.results),
                "measured": to_dict(result.measured),
            }
        )
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        channel.emit({"event": "error", **_describe(error, stage)})
        return 1
    return 0


def _describe(error: Exception, stage: str) -> dict[str, str]:
    """The error as the parent rebuilds it; out of memory and disk full get their own classes."""
    if isinstance(error, SharpenError):
        return {"class": type(error).__name__, "message": str(error)}
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return {
            "class": OutOfMemoryError.__name__,
            "message": f"the stage '{stage}' ran out of memory: {error}. "
            "'sharpen plan RECIPE' shows what takes the memory and what lowers it.",
        }
    if isinstance(error, OSError):
        return {
            "class": StorageError.__name__,
            "message": f"the stage '{stage}' failed on a file: {error}. Free space or choose "
            "another folder with --output, and run the same command again; it resumes.",
        }
    trace = "".join(traceback.format_exception(error))
    return {
        "class": ExecutionError.__name__,
        "message": f"the stage '{stage}' failed: {type(error).__name__}: {error}\n{trace}",
    }
