import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from sharpen.core.errors import (
    ConfigError,
    DataError,
    ExecutionError,
    FileFormatError,
    MissingFileError,
)
from sharpen.optim.bench.official import read_results
from sharpen.optim.bench.scoring import score
from sharpen.optim.bench.shapes import memory_table
from sharpen.optim.bench.study import Journal, plan_jobs, run_jobs, times_of
from sharpen.optim.bench.submission import BASELINES, FromOptimizer, find_submission
from sharpen.optim.bench.suite import find_workload, load_targets, read_targets, suite
from sharpen.optim.bench.targets import set_targets
from sharpen.optim.bench.trial import TrialResult
from sharpen.optim.bench.workload import Target


def test_settings_are_the_same_on_all_workloads_and_seeds_are_not() -> None:
    jobs = plan_jobs(["adamw"], ["digits-mlp", "digits-cnn"])
    assert len(jobs) == 2 * 15
    assert [j.settings for j in jobs[:15]] == [j.settings for j in jobs[15:]]
    assert len({j.seed for j in jobs[:15]}) == 15
    assert {(j.study, j.trial) for j in jobs[:15]} == {(s, t) for s in range(3) for t in range(5)}
    alone = plan_jobs(["adamw"], ["digits-mlp"], rules="self")
    assert [(j.study, j.budget, j.settings) for j in alone] == [(s, 1.5, {}) for s in range(3)]


def test_a_journal_survives_a_kill_and_tells_a_miss(tmp_path: Path) -> None:
    jobs = plan_jobs(["adamw"], ["digits-mlp"], trials=1)
    journal = Journal(tmp_path / "trials.jsonl")
    assert journal.rows() == []
    for job, time in zip(jobs, (30.0, math.inf, 20.0), strict=True):
        journal.add(job, TrialResult(time, "reached", 30))
    assert times_of(journal.rows()) == {"adamw": {"digits-mlp": 30.0}}
    with journal.path.open("a") as file:
        file.write('{"submission": "ad')  # cut short
    assert len(journal.rows()) == 3
    journal.path.write_text("no trial\n" + journal.path.read_text())
    with pytest.raises(FileFormatError, match=r"trials.jsonl:1 is no trial"):
        journal.rows()


def test_trials_run_in_processes_once(tmp_path: Path) -> None:
    jobs = plan_jobs(["adamw", "heavyball"], ["digits-mlp"], trials=1, studies=1)
    journal = Journal(tmp_path / "trials.jsonl")
    targets = {"digits-mlp": Target(0.9, 0.9, max_steps=25, max_cpu_s=60.0)}
    told = []
    for _ in range(2):
        run_jobs(jobs, journal, targets, tell=lambda job, result: told.append(job.submission))
    assert sorted(told) == ["adamw", "heavyball"]
    rows = journal.rows()
    assert all(row["time_to_target"] == 25 and row["status"] == "reached" for row in rows)
    assert score(times_of(rows)) == {"adamw": 1.0, "heavyball": 1.0}


def test_a_trial_that_fails_or_hangs_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    lines = "from sharpen.optim.bench.submission import FromOptimizer\n"
    lines += (
        "class Mine(FromOptimizer):\n    def start(self, workload, model, settings, max_steps):\n"
    )
    lines += "        {}\ndef submission():\n    return Mine('mine', {{}}, 'adamw')\n"
    targets = {"digits-mlp": Target(0.9, 0.9, max_steps=25, max_cpu_s=60.0)}
    journal = Journal(tmp_path / "trials.jsonl")
    for body, text in (
        ("raise ValueError('no such luck')", "failed: ValueError: no such luck"),
        (
            "import contextlib, time\n        with contextlib.suppress(Exception):\n"
            "            time.sleep(600)\n        time.sleep(600)",
            "failed: TimeoutError: it took longer than 10 s",
        ),
    ):
        (tmp_path / "mine.py").write_text(lines.format(body))
        names = ["adamw", str(tmp_path / "mine.py"), "lion"]
        jobs = plan_jobs(names, ["digits-mlp"], rules="self", studies=1)
        jobs = [replace(job, settings={"lr": 1e-3}) for job in jobs]
        with pytest.raises(ExecutionError, match=rf"trial 0 of study 0 of .*mine.py .*{text}"):
            run_jobs(jobs, journal, targets, timeout_s=10.0 if "sleep" in body else 600.0)
    assert "adamw" in {row["submission"] for row in journal.rows()}


def test_targets_are_set_by_the_best_method(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    found = set_targets(
        ["digits-mlp"], file, tmp_path / "journal.jsonl", trials=4, seeds=2, processes=1
    )["digits-mlp"]
    assert load_targets(file) == {"digits-mlp": found}
    rows = Journal(tmp_path / "journal.jsonl").rows()
    assert len(rows) == 6
    reached = [min(e["validation"] for e in r["evals"]) for r in rows if r["study"]]
    assert min(reached) <= found.validation <= max(reached) < 0.2
    assert found.max_steps == round(4 / 3 * find_workload("digits-mlp").steps)
    methods = ["adamw", "nadamw", "heavyball", "nesterov"]
    rule = read_targets(file)["digits-mlp"]["rule"]
    assert rule == {"methods": methods, "trials": 4, "seeds": 2}


def test_a_file_that_holds_no_targets_is_named(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    with pytest.raises(MissingFileError, match=r"targets.json"):
        load_targets(file)
    for wrong in ('{"format": 1, "targets": {}}', '{"format": 2, "targets": {"a": {}}}', "[]"):
        file.write_text(wrong)
        with pytest.raises(FileFormatError, match="no file of targets of format 2"):
            load_targets(file)


def test_every_workload_and_variant_has_a_target_and_trains() -> None:
    import torch

    targets = load_targets()
    assert set(targets) == set(suite(variants=True, missing=True))
    for name in suite(variants=True):
        workload = find_workload(name)
        torch.manual_seed(0)
        model = workload.make_model()
        loss = workload.loss(model, next(workload.batches(0, 8)))
        loss.backward()
        assert loss.isfinite()
        grads = [p.grad for p in model.parameters()]
        assert all(g is not None and g.isfinite().all() for g in grads), name
    with pytest.raises(ConfigError, match="Did you mean 'digits-mlp'"):
        find_workload("digits-mpl")
    with pytest.raises(ConfigError, match="no variant 'wise'"):
        find_workload("digits-mlp/wise")


def test_the_page_has_the_targets_of_the_file(repository: Path) -> None:
    page = (repository / "docs/optim/bench.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    shown = {row[0].strip(" `"): row[1:] for row in rows if len(row) == 5}
    targets = load_targets()
    assert list(shown) == suite(missing=True)
    for name, cells in shown.items():
        wanted = targets[name]
        numbers = (wanted.validation, wanted.test, wanted.max_steps, wanted.max_cpu_s)
        texts = [f"{x:.4f}" for x in numbers[:2]] + [str(numbers[2]), f"{numbers[3]:.1f}"]
        assert [cell.strip() for cell in cells] == texts, name


def test_submissions_by_name_and_file(tmp_path: Path) -> None:
    for name in BASELINES:
        found = find_submission(name)
        assert isinstance(found, FromOptimizer)
        assert found.name == name and "lr" in found.space
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"lr": {"feasible_points": [0.1]}}))
    assert find_submission("lion", space).space == {"lr": {"feasible_points": [0.1]}}
    (tmp_path / "mine.py").write_text(
        "from sharpen.optim.bench.submission import FromOptimizer\n"
        "def submission():\n    return FromOptimizer('mine', {}, 'adamw')\n"
    )
    assert find_submission(str(tmp_path / "mine.py")).name == "mine"
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"must define submission\(\)"):
        find_submission(str(tmp_path / "none.py"))
    with pytest.raises(MissingFileError):
        find_submission(str(tmp_path / "gone.py"))
    with pytest.raises(ConfigError, match="no optimizer 'adamq'"):
        find_submission("adamq")


def write_log(folder: Path, rows: list[tuple[float, float]], metric: str = "loss") -> None:
    folder.mkdir(parents=True)
    lines = [f"{seconds},{value}" for seconds, value in rows]
    header = f"accumulated_submission_time,validation/{metric}"
    (folder / "eval_measurements.csv").write_text("\n".join([header, *lines]) + "\n")


def test_logs_of_the_published_benchmark_are_read(tmp_path: Path) -> None:
    for study in range(3):
        base = tmp_path / "mine" / f"study_{study}"
        write_log(base / "criteo1tb_jax" / "trial_1", [(100, 0.13), (900 + study, 0.1237)])
        write_log(base / "criteo1tb_jax" / "trial_2", [(8000, 0.12)])  # past the budget
        write_log(base / "wmt_jax" / "trial_1", [(50, 30.0), (60, 30.9)], metric="bleu")
    (found,) = read_results(tmp_path).values()
    assert found["criteo1tb"] == 901 and found["wmt"] == 60 and found["ogbg"] == math.inf
    broken = tmp_path / "mine/study_0/criteo1tb_jax/trial_1/eval_measurements.csv"
    broken.write_text("accumulated_submission_time,validation/loss\n1,x\n")
    with pytest.raises(FileFormatError, match=r"eval_measurements.csv:2"):
        read_results(tmp_path)
    broken.write_text("time\n1\n")
    with pytest.raises(FileFormatError, match="no column"):
        read_results(tmp_path)
    with pytest.raises(DataError, match="no folder of a submission"):
        read_results(tmp_path / "mine")
    with pytest.raises(MissingFileError):
        read_results(tmp_path / "gone")


def test_memory_of_published_shapes() -> None:
    (adamw, mini) = memory_table("llama-60m", ["adamw", "apollo_mini"], dtype="bfloat16")
    count = adamw["params"] // 2
    assert count == 58_073_600 and adamw["states"] == 8 * count
    assert mini["states"] < 0.7 * adamw["states"]
    with pytest.raises(ConfigError, match="no shape 'llama-7c'"):
        memory_table("llama-7c", ["adamw"])
