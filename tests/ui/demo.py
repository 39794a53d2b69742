"""Studies and a run for the page's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sharpen as sh
from sharpen.core.metrics import MetricsLog
from sharpen.core.problem import TrialContext
from sharpen.core.samples import SampleLog, samples_path

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


def make_aligned(folder: Path) -> None:
    """A run that learns from rewards and goes wrong, with samples that try to be markup."""
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text(
        "sharpen: 1\nname: sick\nrl: {uses: align, method: grpo}\nmystery: {uses: unknown}\n"
    )
    log, samples = MetricsLog(folder / "metrics.jsonl"), SampleLog(samples_path(folder, "rl"))
    for step in range(1, 13):
        for name, value in {
            "reward": step / 12,
            "reward_std": 0.3,
            "kl_k3": step / 2,
            "truncated": 0.75,
            "engine_gap": 0.2,
            "learn_s": 0.1,
            "loss": 0.0,
            "odd": step,
        }.items():
            log.append("rl", name, value, step)
        completion = "<i>no</i> \x1b[31m\x00 \u202e" + "x" * 30_000 if step == 1 else f"say {step}"
        row = {"step": step, "prompt": "<b>hi</b>\nyou", "completion": completion}
        samples.append({**row, "reward": None if step == 2 else step / 12, "version": step})
    with samples.path.open("ab") as file:
        file.write(b'{"step": 13, "prompt": "torn')
