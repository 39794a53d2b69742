"""The public surface as users type it: each snippet runs as it stands, with small numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

import sharpen as sh
from distributed import run
from e2e.command import document, sharpen, small_recipe, start, write_chats, write_recipe


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> sh.Run:
    """The recipe of the main job, up to its compressed models."""
    folder = tmp_path_factory.mktemp("api")
    parts = small_recipe()
    parts["train"]["steps"] = 6
    del parts["serve"], parts["report"]
    return sh.run(write_recipe(folder, parts), {"train.lr": 3e-4}, output=folder / "q")


def test_importing_the_package_loads_no_heavy_library() -> None:
    program = (
        "import sys, sharpen as sh; sh.Float, sh.run, sh.plan\n"
        "print(sorted({'torch', 'sqlalchemy', 'pydantic', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_one_recipe_four_verbs(small_run: sh.Run) -> None:
    recipe = small_run.folder.parent / "recipe.yaml"
    plan = sh.plan.recipe(recipe)
    assert "train" in plan.table()
    assert plan.fits
    assert plan.peak_bytes > 0
    assert plan.step_s > 0
    assert small_run.summary["eval.loss_after"] == small_run.summary["eval"]["loss_after"]
    assert (small_run.artifact("train") / "adapter_model.safetensors").is_file()
    again = sh.run(recipe, {"train.lr": 3e-4}, output=small_run.folder)
    assert again.reused == ["data", "train", "eval", "compress"]
    assert again.report == small_run.folder / "report.html"


@pytest.mark.slow
def test_tuning_takes_a_recipe_and_a_space(work: Path) -> None:
    parts = small_recipe()
    parts["train"]["steps"] = 2
    recipe = {key: parts[key] for key in ("sharpen", "name", "model", "data", "train")}
    study = sh.tune(
        write_recipe(work, recipe),
        over={
            "train.lr": sh.Float(1e-5, 1e-3, log=True),
            "train.rank": sh.Int(2, 64, log=True),
        },
        minimize="train.loss_last",
        budget=sh.Budget(trials=2),
    )
    assert set(study.best.config) == {"train.lr", "train.rank"}
    assert study.best.value == min(t.value for t in study.trials())
    folders = sorted(Path("runs/small-tune/trials").iterdir())
    assert [f.name for f in folders] == ["0", "1"]


def test_anything_is_a_problem(work: Path) -> None:
    space = sh.Space(
        x=sh.Float(-5, 10),
        y=sh.Float(0, 15),
        kind=sh.Categorical("a", "b"),
        depth=sh.Int(1, 32).active_if(sh.Eq("kind", "b")),
    )

    @sh.problem(space, minimize="loss", constraints=["memory <= 8e9"])
    def objective(config: dict[str, Any], trial: sh.Trial) -> dict[str, float]:
        loss = (config["x"] - 1) ** 2 + config["y"]
        trial.report(0, loss)
        return {"loss": loss, "memory": 1e9 * config.get("depth", 1)}

    study = sh.Study(
        objective,
        optimizer="auto",
        store="sqlite:///study.db",
        budget=sh.Budget(trials=24, seconds=600),
    )
    study.run()
    trials = study.trials()
    allowed = [t for t in trials if t.config.get("depth", 1) <= 8]
    assert len(trials) == 24
    assert study.best.value == min(t.value for t in allowed)
    assert all(("depth" in t.config) == (t.config["kind"] == "b") for t in trials)
    assert [t.number for t in study.pareto()] == [study.best.number]
    assert len(study.frame()) == 24
    study.report("study.html")
    assert "<html" in Path("study.html").read_text(encoding="utf-8")


def test_every_optimizer_works_bare() -> None:
    optimizer = sh.search.Random(sh.Space(x=sh.Float(-1, 1)), seed=3)
    candidates = optimizer.ask(4)
    optimizer.tell([c.result(c.config["x"] ** 2) for c in candidates])
    best = min(candidates, key=lambda c: c.config["x"] ** 2)
    assert optimizer.recommend().config == best.config


def test_a_study_file_runs_a_program_and_resumes(work: Path) -> None:
    Path("objective.py").write_text(
        "import json, sys\nprint('noise')\nprint(json.dumps({'y': float(sys.argv[1]) ** 2}))\n"
    )
    study = {
        "name": "chaos",
        "store": "sqlite:///s.db",
        "command": f"{sys.executable} objective.py {{x}}",
        "space": {"x": {"type": "float", "low": 0, "high": 1}},
        "minimize": "y",
        "optimizer": "random",
        "budget": {"trials": 6},
        "workers": 2,
    }
    Path("study.yaml").write_text(yaml.safe_dump(study))
    first = document(sharpen("search", "run", "study.yaml", "--json", cwd=work))
    again = document(sharpen("search", "run", "study.yaml", "--json", cwd=work))
    assert first == again
    export = ("search", "export", "--store", "sqlite:///s.db", "chaos", "trials.jsonl")
    assert sharpen(*export, cwd=work).returncode == 0
    rows = [json.loads(line) for line in Path("trials.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(6))
    assert all(row["values"]["y"] == pytest.approx(row["config"]["x"] ** 2) for row in rows)


def test_optimizers_tell_their_bytes_before_and_after_the_first_step() -> None:
    import torch
    from torch import nn

    from sharpen.optim import AdamW8bit, Apollo, param_groups

    model = nn.Sequential(nn.Embedding(64, 320), nn.Linear(320, 640), nn.Linear(640, 64))
    optimizer = Apollo(param_groups(model, optimizer="apollo", rank=256), lr=1e-2)
    before = optimizer.state_bytes()
    model(torch.arange(8)).square().mean().backward()
    optimizer.step()
    assert before == optimizer.state_bytes() < 8 * sum(p.numel() for p in model.parameters())
    assert AdamW8bit(model.parameters()).state_bytes() < before / 2


@pytest.mark.slow
def test_models_and_serving_in_python(small_run: sh.Run) -> None:
    from sharpen.models import load_model, load_tokenizer
    from sharpen.serve import LLM, SamplingParams

    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    assert model.spec.vocab_size >= tokenizer.vocab_size
    llm = LLM(str(small_run.artifact("compress") / "int4"))
    question = [{"role": "user", "content": "Why is the sky blue?"}]
    params = SamplingParams(temperature=0, max_tokens=16)
    text = llm.chat(question, params).text
    assert text == llm.chat(question, params).text
    pieces = list(llm.stream("def add(a, b):", params))
    assert "".join(p.text for p in pieces) == llm.generate("def add(a, b):", params).text


@pytest.mark.slow
def test_any_openai_client_talks_to_a_served_variant(small_run: sh.Run, work: Path) -> None:
    folder = small_run.artifact("compress") / "int4"
    words = ("serve", folder, "--port", 0, "--api-key", "secret", "--json")
    with start(*words, cwd=work) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with openai.OpenAI(base_url=ready["url"] + "/v1", api_key="secret") as client:
            answer = client.chat.completions.create(
                model=ready["model"],
                messages=[{"role": "user", "content": "def add(a, b): return a + b"}],
                max_tokens=8,
            )
            stream = client.completions.create(
                model=ready["model"], prompt="import", max_tokens=4, stream=True
            )
            assert sum(len(chunk.choices) for chunk in stream) >= 1
        assert answer.choices[0].message.role == "assistant"
        assert 1 <= answer.usage.completion_tokens <= 8
        os.kill(ready["pid"], signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.slow
def test_training_as_a_function(work: Path) -> None:
    from sharpen.data import TokenDataset
    from sharpen.models import load_model
    from sharpen.train import TrainConfig, Trainer

    write_chats(Path("chats.jsonl"))
    parts = small_recipe()
    recipe = {key: parts[key] for key in ("sharpen", "name", "model", "data")}
    data = sh.run(recipe).artifact("data")
    config = TrainConfig(steps=3, global_batch=2, lr=1e-3)
    result = Trainer(load_model("tiny"), TokenDataset(data), config, output="runs/a").fit()
    assert result.steps == 3
    # The same folder again: everything is done, and nothing is trained twice.
    again = Trainer(load_model("tiny"), data, config, output="runs/a").fit()
    assert (again.steps, again.loss_last) == (3, result.loss_last)


def train_on_two_ranks(data: Path, folder: Path) -> tuple[float, int, float]:
    """The page's two calls; the loss, the steps and the error of attention on this rank."""
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch.distributed.device_mesh import init_device_mesh

    from sharpen.models import load_model
    from sharpen.train import ParallelConfig, TrainConfig, Trainer
    from sharpen.train.sp import ulysses_attention

    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("sp",))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 16, heads, 8) for heads in (9, 3, 3))
    share = slice(8 * dist.get_rank(), 8 * dist.get_rank() + 8)
    out = ulysses_attention(
        q[:, share], k[:, share], v[:, share], group=mesh["sp"].get_group(), causal=True
    )
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    whole = F.scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True)
    error = float((out - whole.transpose(1, 2)[:, share]).abs().max())

    config = TrainConfig(
        steps=2, global_batch=2, parallel=ParallelConfig(sp=2, zero_stage=3), lr=1e-3
    )
    result = Trainer(load_model("tiny"), data, config, output=folder).fit()
    return result.loss_last, result.steps, error


@pytest.mark.slow
def test_training_on_several_ranks(small_run: sh.Run, work: Path) -> None:
    from sharpen.models import load_model
    from sharpen.train import TrainConfig, Trainer

    data = small_run.artifact("data")
    config = TrainConfig(steps=2, global_batch=2, lr=1e-3)
    alone = Trainer(load_model("tiny"), data, config, output="runs/alone").fit()
    for loss, steps, error in run(train_on_two_ranks, 2, data, work / "runs" / "a"):
        assert steps == 2
        assert loss == pytest.approx(alone.loss_last, abs=1e-5)
        assert error < 1e-6
