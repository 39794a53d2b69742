"""Progress of a run on standard error: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sharpen.cli.common import error_console, flags
from sharpen.core.report import format_value

__all__ = ["bar", "observe"]


class _Lines:
    """One line when a stage starts and one when it ends."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(text + "\n")

    def stage_started(self, name: str, number: int, total: int) -> None:
        self.say(f"[{number}/{total}] {name} ...")

    def stage_finished(self, name: str, result: Mapping[str, Any], reused: bool) -> None:
        took = "reused" if reused else f"{format_value(result.get('time_s'))} s"
        self.say(f"      {name}: done ({took})")

    def event(self, name: str, event: Mapping[str, Any]) -> None:
        return None


class _Bars(_Lines):
    """The same, with a moving bar for the work under way."""

    def __init__(self, progress: Any) -> None:
        super().__init__(quiet=False)
        self.progress = progress
        self.tasks: dict[str, Any] = {}

    def say(self, text: str) -> None:
        self.progress.console.print(text)

    def event(self, name: str, event: Mapping[str, Any]) -> None:
        key = event["name"]
        if event["event"] == "begin":
            self.tasks[key] = self.progress.add_task(key, total=event["total"], extra="")
        elif event["event"] == "advance" and key in self.tasks:
            shown = {k: format_value(v) for k, v in event["fields"].items()}
            extra = "  ".join(f"{k} {v}" for k, v in shown.items())
            update = {"extra": extra} if extra else {}
            self.progress.update(self.tasks[key], advance=event["n"], **update)
        elif event["event"] == "end" and key in self.tasks:
            self.progress.remove_task(self.tasks.pop(key))


@contextmanager
def observe() -> Iterator[Any]:
    """An observer for :func:`sharpen.run` that suits the terminal and the flags."""
    if flags.quiet or flags.as_json or not sys.stderr.isatty():
        yield _Lines(quiet=flags.quiet)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("      {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}"),
    )
    with Progress(*columns, console=error_console(), transient=True) as progress:
        yield _Bars(progress)


@contextmanager
def bar(observer: Any, description: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Show one bar on ``observer`` while the block runs; the value moves it on."""
    event: dict[str, Any] = {"name": description, "total": total, "fields": {}}
    observer.event("", {**event, "event": "begin"})
    try:
        yield lambda n: observer.event("", {**event, "event": "advance", "n": n})
    finally:
        observer.event("", {**event, "event": "end"})
