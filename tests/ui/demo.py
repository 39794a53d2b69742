"""Studies and a run for the page's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sharpen as sh
from sharpen.core.metrics import MetricsLog
from sharpen.core.problem import TrialContext

SPACE = sh.Space(
    lr=sh.Float(1e-4, 1, log=True),
    width=sh.Int(1, 64),
    kind=sh.Categorical("<b>bold</b>", "plain"),
    depth=sh.Int(1, 5).active_if(sh.Eq("kind", "plain")),
)


@sh.problem(SPACE, minimize="loss", constraints=["bytes <= 50"])
def one(config: dict[str, Any], trial: TrialContext) -> dict[str, float]:
    loss = (config["lr"] - 0.1) ** 2 + config["width"] / 64 + config.get("depth", 3) / 10
    for step in range(3):
        trial.report(step, loss + 1 - step / 3)
    if trial.number % 10 == 4:
        raise ValueError("no <i>luck</i>")
    return {"loss": loss, "bytes": config["width"]}


@sh.problem(SPACE, minimize="loss", maximize="speed", name="two goals")
def two(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": 1 / config["width"] + config["lr"], "speed": 1 / config["width"]}


def make(folder: Path) -> tuple[Path, Path]:
    """A store with three studies and a folder with a run; returns both."""
    store, runs = folder / "s.db", folder / "runs"
    budget = sh.Budget(trials=40)
    sh.Study(one, optimizer="sobol", store=store, budget=budget).run()
    sh.Study(one, optimizer="random", store=store, name="other", budget=budget).run()
    sh.Study(two, optimizer="random", store=store, budget=budget).run()
    run = runs / "demo"
    run.mkdir(parents=True)
    log = MetricsLog(run / "metrics.jsonl")
    for step in range(20):
        log.append("train", "loss", 1 / (step + 1), step)
    log.append("eval", "accuracy", 0.9)
    (run / "summary.json").write_text(json.dumps({"eval": {"accuracy": 0.9}}))
    return store, runs
