"""Spans of real steps, on one clock, in Chrome's format."""

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed import run
from plan_profile import pretend
from sharpen.core.errors import ConfigError
from sharpen.core.run import run as run_recipe
from sharpen.plan import ParallelConfig
from sharpen.train import FTConfig, MetricsConfig, TrainConfig, Trainer
from sharpen.train.ft.straggler import ComputeClock, StragglerDetector
from sharpen.train.ft.timeline import (
    Span,
    Timeline,
    chrome_trace,
    clock_offset,
    read_spans,
    write_trace,
)
from sharpen.train.parallel import Parallel
from small_models import save_small_dataset, save_small_model, small_model


class Clock:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_spans_of_the_steps_asked_for_are_recorded_and_written(tmp_path: Path) -> None:
    clock = Clock()
    with Timeline((2, 3), path=tmp_path / "spans", clock=clock) as timeline:
        for step in range(1, 5):
            timeline.begin_step(step)
            clock.now = 10.0 * step
            with timeline.span("forward"):
                clock.now += 3
    expected = [Span("forward", 20.0, 23.0, 2), Span("forward", 30.0, 33.0, 3)]
    assert timeline.spans == expected
    with (tmp_path / "spans").open("a") as file:
        file.write('["forward", 4')  # torn by a kill
    assert read_spans(tmp_path / "spans") == expected
    assert read_spans(tmp_path / "none") == []


def test_a_span_ends_when_its_block_fails() -> None:
    clock = Clock()
    timeline = Timeline(True, clock=clock)
    timeline.begin_step(1)

    def fail() -> None:
        with timeline.span("data"):
            clock.now = 2.0
            raise KeyError("row")

    with pytest.raises(KeyError):
        fail()
    assert timeline.spans == [Span("data", 0.0, 2.0, 1)]


def test_no_timeline_records_nothing() -> None:
    timeline = Timeline(False)
    timeline.begin_step(1)
    with timeline.span("forward"):
        assert not timeline.enabled
    assert timeline.spans == []


def test_a_trace_has_a_process_a_rank_and_microseconds(tmp_path: Path) -> None:
    ranks = {1: [Span("forward", 5.5, 5.75, 1)], 0: [Span("data", 5.0, 5.25, 1)], 2: []}
    write_trace(tmp_path / "trace.json", ranks)
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace == chrome_trace(ranks)
    named = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    assert named == {0: "rank 0", 1: "rank 1", 2: "rank 2"}
    whole = {e["pid"]: (e["name"], e["ts"], e["dur"]) for e in trace["traceEvents"] if "ts" in e}
    assert whole == {0: ("data", 0.0, 250_000.0), 1: ("forward", 500_000.0, 250_000.0)}


def test_a_trainer_records_the_parts_of_its_steps(tmp_path: Path) -> None:
    save_small_dataset(tmp_path / "data")
    config = TrainConfig(steps=3, global_batch=2, lr=1e-3, metrics=MetricsConfig(timeline=(2, 3)))
    trainer = Trainer(small_model(), tmp_path / "data", config, output=tmp_path / "out")
    done = trainer.fit()
    spans = trainer.timeline.spans
    assert {span.step for span in spans} == {2, 3} and done.slow_ranks == {}
    one = {s.name: s for s in spans if s.step == 3}
    assert set(one) == {
        *("step", "data", "wait", "forward", "backward", "reduce", "optimizer", "checkpoint")
    }
    order = ["data", "wait", "forward", "backward", "reduce"]
    assert all(one[a].end_s <= one[b].start_s for a, b in itertools.pairwise(order))
    assert one["step"].start_s <= one["data"].start_s
    assert one["reduce"].end_s <= one["step"].end_s <= one["checkpoint"].start_s


@pytest.mark.parametrize("steps", [(0, 2), (3, 2)])
def test_steps_that_cannot_be_are_refused(steps: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="timeline="):
        MetricsConfig(timeline=steps)


class Sleeper:
    """Keeps one rank from its next step."""

    def __init__(self, rank: int, seconds: float) -> None:
        self.rank, self.seconds = rank, seconds

    def on_start(self, trainer: Trainer) -> None:
        return None

    def on_step(self, trainer: Trainer, report: Any) -> None:
        if trainer.parallel.rank == self.rank:
            time.sleep(self.seconds)


def train_on_rank(folder: str) -> dict[str, Any]:
    """Clock offsets, then trainings in which rank 1 sleeps, in several layouts."""
    found: dict[str, Any] = {}
    parallel = Parallel.build(ParallelConfig(), torch.device("cpu"))
    skew = 1000.0 * parallel.rank
    found["offset"] = clock_offset(parallel, lambda: time.perf_counter() + skew)
    found["gathered"] = parallel.gather(float(parallel.rank + 1))
    for stage, sp in ((1, 1), (3, 1), (1, 2)):
        config = TrainConfig(
            steps=6,
            global_batch=2,
            nproc=2,
            parallel=ParallelConfig(zero_stage=stage, sp=sp),  # type: ignore[arg-type]
            ft=FTConfig(straggler_every=2),
            metrics=MetricsConfig(timeline=True),
        )
        trainer = Trainer(small_model(), folder, config, callbacks=[Sleeper(1, 0.2)])
        done = trainer.fit()
        found[f"slow {stage} {sp}"] = done.slow_ranks
        found[f"waited {stage} {sp}"] = sum(
            s.end_s - s.start_s for s in trainer.timeline.spans if s.name == "wait"
        )
    quiet = dataclasses.replace(config, ft=FTConfig(straggler_every=100))
    found["never compared"] = Trainer(small_model(), folder, quiet).fit().slow_ranks
    return found


@pytest.mark.slow
def test_a_rank_that_sleeps_is_named_and_the_others_are_seen_to_wait(tmp_path: Path) -> None:
    save_small_dataset(tmp_path)
    first, second = run(train_on_rank, 2, str(tmp_path))
    assert first["offset"] == 0.0
    # Half of a round trip on one machine, however busy, is far below the clocks' difference.
    assert second["offset"] == pytest.approx(-1000.0, abs=5.0)
    assert first["gathered"] == second["gathered"] == [1.0, 2.0]
    assert first["never compared"] == {}
    for layout in ("1 1", "3 1", "1 2"):
        named = first[f"slow {layout}"]
        assert set(named) == {"rank_1"} and named["rank_1"] > 1.15
        assert second[f"slow {layout}"] == named
        # Rank 0 waits at the start of each step but the first for the other's 0.2 s.
        assert first[f"waited {layout}"] > second[f"waited {layout}"]


def test_waiting_is_left_out_of_the_compute_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy = Clock(), Clock()
    monkeypatch.setattr("sharpen.train.ft.straggler.time.perf_counter", now)
    monkeypatch.setattr("sharpen.train.ft.straggler.time.thread_time", busy)
    clock = ComputeClock()
    now.now = 1.0
    with clock.waiting():
        now.now = 3.0
        with clock.waiting():  # inside another: not twice
            now.now = 4.0
    clock.leave_out(0.5)
    now.now = 6.0
    assert clock.take() == 6.0 - 3.0 - 0.5
    with clock.processor():
        now.now, busy.now = 16.0, 4.0
        with clock.waiting():
            now.now = 17.0
    assert clock.take() == 4.0
    assert clock.take() == 0.0


def test_a_rank_slow_in_three_windows_running_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    detector = StragglerDetector(1.15)
    windows = [
        [1.0, 1.3, 1.0],
        [1.0, 1.3, 1.0],
        [1.0, 1.0, 1.0],  # a pause: rank 1 begins anew
        [1.0, 1.3, 1.0],
        [1.0, 1.3, 1.1],
        [1.0, 1.4, 1.1],
        [1.0, 1.4, 1.1],
    ]
    named = [detector.observe(window) for window in windows]
    other = StragglerDetector(1.15, tells=False)  # another rank's
    assert [other.observe(window) for window in windows] == named
    assert named == [[], [], [], [], [], [1], []]
    assert detector.slow == {1: round(1.4 / 1.05, 3)}
    (record,) = caplog.records
    assert "rank 1 is slow: it computes 1.33 times as long" in record.getMessage()


def test_a_rank_alone_is_never_slow() -> None:
    detector = StragglerDetector(1.15, windows=1)
    assert detector.observe([5.0]) == []
    assert detector.observe([0.0, 0.0]) == []


def test_a_run_leaves_its_timeline_beside_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small_model(tmp_path / "base")
    pretend(tmp_path, monkeypatch)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "completion": "2"}\n' * 8)
    recipe = {
        "sharpen": 1,
        "name": "traced",
        "model": str(tmp_path / "base"),
        "data": {
            "source": {"path": str(tmp_path / "rows.jsonl")},
            "format": "prompt_completion",
            "max_tokens": 64,
            "split": {"valid": 0},
        },
        "train": {"steps": 2, "global_batch": 1, "metrics": {"timeline": True}},
    }
    done = run_recipe(recipe, output=tmp_path / "run")
    trace = json.loads((tmp_path / "run" / "timeline-train.json").read_text())
    assert {e["args"]["step"] for e in trace["traceEvents"] if e["ph"] == "X"} == {1, 2}
    assert done.summary["train.steps"] == 2


@pytest.mark.parametrize("changes", [{"straggler_every": 0}, {"slow_ratio": 1.0}])
def test_windows_and_ratios_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        FTConfig(**changes)
