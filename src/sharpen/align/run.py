"""The work of the ``align`` stage, in this process or in ranks that a driver watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sharpen.align.alignment import Alignment
from sharpen.align.config import AlignConfig
from sharpen.align.heads import take_off_heads, write_dueling_head
from sharpen.align.methods.bcoder import BCODER
from sharpen.align.rows import TokenizedRows
from sharpen.align.score_model import write_score_model
from sharpen.core.assets import ASSETS
from sharpen.core.config import from_dict, to_dict
from sharpen.core.stage import Progress, StageContext, StageResult
from sharpen.models.decoder import DecoderLM
from sharpen.train import TrainResult
from sharpen.train.config import TrainConfig
from sharpen.train.ft.driver import RankJob, drive
from sharpen.train.ft.rank import Rank
from sharpen.train.ft.selfcheck import Needs
from sharpen.train.ft.timeline import trace_file, write_trace
from sharpen.train.prepare import write_trained

__all__ = ["align_rank", "run_align"]


def run_align(config: AlignConfig, context: StageContext) -> StageResult:
    """Read the rows, load the model, learn, write an adapter or a model."""
    assert context.model is not None
    earlier = context.inputs.get("model")
    base = str(earlier.path) if earlier is not None else context.model
    job = Alignment(config, context, base)
    if job.training.world_size > 1:
        done, measured = _learn_on_ranks(job)
    else:
        done, measured = job.learn()
        if (trace := trace_file(job.training.metrics, context)) is not None:
            write_trace(trace, {0: job.timeline.spans})
    model, method = job.model, job.method
    name = context.model if context.model in ASSETS else Path(context.model).name
    results = _results(model, done, job.rows)
    if method.name == "rm":
        write_score_model(model, context.output, job.tokenizer, merged=config.adapts)
    else:
        if method is BCODER:
            write_dueling_head(model, context.output)
        take_off_heads(model)
        write_trained(model, job.training, context.output, job.tokenizer, name)
    return StageResult(
        results=results,
        measured={
            "step_s": done.step_s,
            "tokens_per_s": done.tokens_per_s,
            "peak_bytes": done.peak_bytes,
            **measured,
        },
    )


class _Relay:
    """Passes on to a run what rank 0 tells its context."""

    def __init__(self, context: StageContext, stack: ExitStack) -> None:
        self._context, self._stack = context, stack
        self._bar: Progress | None = None
        self.failures = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "metric":
            self._context.metric(event["name"], event["value"], event["at"])
        elif kind == "rewind":
            self._context.rewind(event["to"])
        elif kind == "progress":
            self._stack.close()  # of the one before, or of ranks that failed
            shown = self._context.progress(event["description"], event["total"])
            self._bar = self._stack.enter_context(shown)
        elif kind == "advance" and self._bar is not None:
            self._bar.advance(event["n"], **event["fields"])
        elif kind == "failure":
            self.failures += 1


class _Bar:
    """Progress that is shown elsewhere."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    def advance(self, n: float = 1, **fields: Any) -> None:
        """See :class:`~sharpen.core.stage.Progress`."""
        self._tell("advance", n=n, fields=fields)


def _learn_on_ranks(job: Alignment) -> tuple[TrainResult, dict[str, Any]]:
    """Learn in processes that a driver watches; what they learn goes into the job's model."""
    context, training = job.context, job.training
    given = {
        "config": to_dict(job.config),
        "base": job.base,
        "stage": context.stage,
        "folder": str(context.folder or ""),
        "run_folder": str(context.run_folder or ""),
    }
    copies = 2 if job.config.generates else 1  # the engine's
    ranks = RankJob(
        target="sharpen.align.run:align_rank",
        given=given,
        config=training,
        work=context.work,
        seed=context.seed,
        trace=trace_file(training.metrics, context),
        needs=Needs.of(job.model, copies * training.world_size),
    )
    with ExitStack() as stack:
        relay = _Relay(context, stack)
        done = drive(ranks, relay)
    job.read_back()
    measured = {**done["measured"], "restarts": relay.failures}
    return TrainResult(**done["result"]), measured


def align_rank(given: Mapping[str, Any], config: TrainConfig, rank: Rank) -> dict[str, Any]:
    """What a rank does: its share of an alignment.

    Args:
        given: the stage's ``config``, its name, the model to begin with, and where it runs.
        config: of the training; the stage's says the same.
        rank: see there.

    Returns:
        ``result``, the fields of a :class:`TrainResult` (``peak_bytes`` is the highest of all
        ranks), and ``measured``.
    """
    tell = rank.tell

    @contextmanager
    def progress(description: str, total: float | None) -> Iterator[Progress]:
        assert tell is not None
        tell("progress", description=description, total=total)
        yield _Bar(tell)

    context = StageContext(
        stage=given["stage"],
        seed=rank.seed,
        model=given["base"],
        inputs={},
        output=rank.work,
        work=rank.work,
        folder=Path(given["folder"]) if given["folder"] else None,
        run_folder=Path(given["run_folder"]) if tell and given["run_folder"] else None,
        on_metric=tell and (lambda name, value, at: tell("metric", name=name, value=value, at=at)),
        on_rewind=tell and (lambda to: tell("rewind", to=to)),
        on_progress=progress if tell is not None else None,
    )
    job = Alignment(
        from_dict(AlignConfig, given["config"]),
        context,
        given["base"],
        callbacks=rank.callbacks,
        timeline=rank.timeline,
    )
    done, measured = job.learn()
    peak = torch.tensor(done.peak_bytes)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return {"result": {**asdict(done), "peak_bytes": int(peak)}, "measured": measured}


def _results(model: DecoderLM, done: TrainResult, rows: TokenizedRows) -> dict[str, Any]:
    return {
        "steps": done.steps,
        "skipped_steps": done.skipped_steps,
        "rows": len(rows),
        "dropped": dict(rows.dropped),
        "cut": rows.cut,
        "tokens": done.tokens,
        "labels": done.labels,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "loss_first": done.loss_first,
        "loss_last": done.loss_last,
    }
