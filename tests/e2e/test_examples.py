"""Every file in ``examples/`` works as its first lines say."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.command import ENVIRONMENT, document, sharpen
from sharpen.core.run_folder import load_run
from sharpen.core.study import load_study
from sharpen.models import load_model, load_tokenizer

TESTED = {
    "align/doors.yaml",
    "align/instructions.py",
    "align/preferences.jsonl",
    "align/preferences.yaml",
    "align/retrieval.txt",  # with the worlds of agents
    "align/rewards.py",
    "align/rewards.yaml",
    "align/steps.yaml",
    "align/worlds.py",
    "code/slow.py",  # with sharpen improve
    "code/test_slow.py",
    "code/unique.py",
    "code/unique_samples.jsonl",
    "data/web_text.jsonl",
    "data/web_text.yaml",
    "discover_optimizer.py",  # with the programs of optimizers
    "finetune/intents.jsonl",
    "finetune/methods.yaml",
    "finetune/prune.yaml",
    "llama3_8b.yaml",
    "llama3_8b/config.json",
    "long_context.yaml",
    "objective.py",
    "pretrain_tiny.py",
    "quickstart.yaml",
    "study.yaml",
    "tasks/answers.jsonl",
    "tasks/choices.jsonl",
    "text/critic.py",
    "text/library.py",
    "text/controller.py",
    "text/lm.py",
    "text/repair.py",
    "text/restaurants.jsonl",
    "text/sentiment.yaml",
    "text/tuning.py",
}
STAGES = {"data", "train", "eval", "compress", "serve"}


@pytest.fixture
def work(tmp_path: Path, repository: Path) -> Path:
    """A folder with a copy of the examples."""
    shutil.copytree(repository / "examples", tmp_path / "examples")
    return tmp_path


def test_no_example_is_left_out(repository: Path) -> None:
    root = repository / "examples"
    files = [p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {str(p.relative_to(root)) for p in files} == TESTED


def test_web_pages_are_cleaned_and_accounted_for(work: Path) -> None:
    done = sharpen("data", "run", "examples/data/web_text.yaml", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)
    assert told["rows_in"] == told["rows_out"] + told["rows_traced"] == 26
    again = document(sharpen("data", "run", "examples/data/web_text.yaml", "--json", cwd=work))
    assert (again["cached"], again["sha256"]) == (True, told["sha256"])


@pytest.mark.slow
def test_preferences_are_learnt_after_answers(work: Path) -> None:
    done = sharpen("run", "examples/align/preferences.yaml", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)["summary"]
    assert told["sft"]["loss_last"] < told["sft"]["loss_first"] / 3
    assert told["dpo"]["loss_last"] < told["dpo"]["loss_first"]
    assert told["dpo"]["accuracy_last"] > 0.8
    assert load_model(work / "runs/preferences/dpo").spec.num_layers > 0


@pytest.mark.slow
def test_a_reward_of_ones_own_is_learnt_from(work: Path) -> None:
    done = sharpen("run", "examples/align/rewards.yaml", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)["summary"]["align"]
    assert told["steps"] == 6
    assert told["rewards"]["samples"] == 6 * 4 * 4
    assert 0 < told["reward_first"] < 1


@pytest.mark.slow
def test_an_agent_learns_which_step_is_better(work: Path) -> None:
    done = sharpen("run", "examples/align/steps.yaml", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)["summary"]["align"]
    assert told["pairs_first"] > 2
    assert told["reward_last"] > told["reward_first"] + 0.1
    assert told["success_after_last"] > told["success_first"] + 0.3


def test_an_agent_gets_instructions_that_help(work: Path) -> None:
    call = [sys.executable, "examples/align/instructions.py"]
    done = subprocess.run(call, cwd=work, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "instructions: First read the note." in done.stdout
    again = ("align", "instruct", "--world", "examples/align/worlds.py:Doors", "--steps", "2")
    again += ("--lm", "scripted:examples/align/doors.yaml", "--json")
    told = document(sharpen(*again, "--instructions", "Open the red door.", cwd=work))
    assert (told["accepted"], told["instructions"]) == (True, "First read the note.")
    assert (work / "runs/instruct/instructions.txt").read_text() == "First read the note.\n"
    (work / "given.txt").write_text("Open the red door.\n")
    told = document(sharpen(*again, "--instructions", "@given.txt", cwd=work))
    assert told["usage"]["calls"] == 0


@pytest.mark.asset
@pytest.mark.slow
def test_a_small_model_gets_a_better_prompt(work: Path) -> None:
    call = ("text", "optimize", "examples/text/sentiment.yaml", "--eo", "none", "--json")
    done = sharpen(*call, cwd=work)
    assert done.returncode == 0, done.stderr
    told = document(done)
    assert told["judgements"] <= told["judgements_allowed"]
    # 54 test reviews: the first prompt guesses, the found one does not.
    assert told["test"]["score_given"]["value"] < 0.65
    assert told["test"]["score"]["low"] > 0.6
    assert told["test"]["p_mcnemar"] < 0.01
    again = document(sharpen(*call, cwd=work))
    assert again["usage"]["calls"] == 0
    assert again["prompt"] == told["prompt"]


def test_the_study_finds_a_valley_and_its_trials_are_exported(work: Path) -> None:
    done = sharpen("search", "run", "examples/study.yaml", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    study = load_study("sqlite:///s.db" if Path("s.db").exists() else work / "s.db", "chaos")
    assert len(study.trials()) == 60
    x = study.best.config["x"]
    assert study.best.value == pytest.approx((x - 0.3) ** 2 + 0.05 * math.sin(40 * x))
    # Random points of the unit interval: 60 leave no valley of this width unseen.
    assert study.best.value < -0.02
    export = ("search", "export", "--store", "sqlite:///s.db", "chaos", "trials.jsonl")
    assert sharpen(*export, cwd=work).returncode == 0
    assert len((work / "trials.jsonl").read_text().splitlines()) == 60


def test_the_large_model_is_planned_without_its_weights(work: Path) -> None:
    words = ("plan", "examples/llama3_8b.yaml", "--devices", "8xH100", "--json")
    done = sharpen(*words, cwd=work)
    assert done.returncode == 0, done.stderr
    plan = document(done)
    assert plan["model"]["parameters"] == 8_030_261_248
    assert plan["accounting"][3]["built"]["total"] == 16_060_522_496
    found = sharpen("plan", "examples/llama3_8b.yaml", "--devices", "64xH100", "--search", cwd=work)
    assert found.returncode == 0, found.stderr
    assert "To use the first:" in found.stdout


def test_reviews_are_sorted_and_nothing_is_asked_twice(work: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "examples/text/lm.py", *words]
        done = subprocess.run(
            command, cwd=work, env=ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert "stopped: max_calls=2 is used up" in run("--calls", "2")
    first = run()
    assert first.startswith("bad      The soup was cold")
    assert "3 calls, 2 from the cache" in first
    again = run()
    assert "0 calls, 5 from the cache" in again
    assert again.splitlines()[:5] == first.splitlines()[:5]


def _run(work: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=work,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_criticism_improves_an_instruction(work: Path) -> None:
    told = _run(work, "examples/text/critic.py")
    assert "one sentence with two numbers" in told
    assert "9 calls" in told
    page = (work / "critic.html").read_text()
    assert "+Describe the product in one sentence" in page
    assert "<svg" in page


@pytest.mark.asset("wordllama")
def test_the_library_answers_from_its_docstrings(work: Path) -> None:
    asked = ("examples/text/library.py", "How do I pick a random element and shuffle a list?")
    for more in ((), ("--embedder", "wordllama")):
        told = _run(work, *asked, *more)
        assert "shuffle" in told.split("\n\n", 1)[1]
        tokens = [int(part.split()[-2]) for part in told.split(",") if part.endswith("tokens")]
        assert len(tokens) == 4
        assert max(tokens) <= 200


@pytest.mark.slow
def test_the_tasks_measure_a_model(work: Path) -> None:
    tasks = ("--task", "examples/tasks/choices.jsonl", "--task", "examples/tasks/answers.jsonl")
    done = sharpen("eval", "tiny", *tasks, "--max-new-tokens", 4, "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    choices, answers = document(done)["tasks"]
    assert (choices["kind"], choices["count"]) == ("choice", 8)
    assert (answers["kind"], answers["count"]) == ("exact_match", 4)
    assert 0 <= choices["acc"] <= 1


@pytest.mark.slow
def test_pretraining_writes_a_model_that_loads(work: Path) -> None:
    subprocess.run(
        [sys.executable, "examples/pretrain_tiny.py", "out", "--steps", "2", "--modules", "12"],
        cwd=work,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    model, tokenizer = load_model(work / "out"), load_tokenizer(work / "out")
    assert model.spec.vocab_size >= tokenizer.vocab_size > 1000
    assert tokenizer.decode(tokenizer.encode("def f(x):\n    return x\n")) == (
        "def f(x):\n    return x\n"
    )
    record = json.loads((work / "out" / "training.json").read_text())
    assert record["config"]["steps"] == 2
    # Fresh weights know nothing: the first loss is near that of a uniform guess.
    assert record["curve"][0]["loss"] == pytest.approx(math.log(4096), abs=0.5)


def _check_quickstart(folder: Path) -> None:
    run = load_run(folder)
    assert set(run.summary) == {*STAGES, "plan", "run"}
    assert run.summary["serve.ok"] is True
    assert 0 < run.summary["eval.loss_after"] < 20
    assert 0 < run.summary["eval.loss_before"] < 20
    int4, int8 = run.summary["compress.int4"], run.summary["compress.int8"]
    assert 0 < int4["bytes"] < int8["bytes"] < run.summary["compress.baseline.bytes"]
    for variant in (int4, int8):
        assert variant["perplexity"] > 1
        assert variant["tokens_per_s"] > 0
    assert run.summary["plan.memory_error"] >= 0
    page = run.report.read_text(encoding="utf-8")
    assert "Plan: predicted and measured" in page
    samples = (run.artifact("eval") / "samples.jsonl").read_text().splitlines()
    assert set(json.loads(samples[0])) >= {"before", "after"}


@pytest.mark.slow
@pytest.mark.asset
def test_the_quickstart_runs(work: Path) -> None:
    changes = [
        "data.limit=60",
        "data.max_tokens=192",
        "train.steps=2",
        "train.global_batch=1",
        "eval.limit=1",
        "eval.samples=1",
        "eval.max_new_tokens=4",
        "compress.limit=1",
        "compress.new_tokens=4",
        "serve.check.max_tokens=4",
    ]
    done = sharpen("run", "examples/quickstart.yaml", *changes, "-o", "out", cwd=work)
    assert done.returncode == 0, done.stderr
    _check_quickstart(work / "out")


@pytest.mark.slow
def test_long_context(work: Path) -> None:
    """The recipe as it is takes minutes; here with short sequences on its two processes."""
    changes = ("data.max_tokens=2304", "train.context=2304", "train.steps=2", "data.limit=4")
    recipe = "examples/long_context.yaml"
    done = sharpen("train", recipe, *changes, "--nproc", "2", "-o", "out", "--json", cwd=work)
    found = json.loads(done.stdout)["summary"]
    assert found["train"]["steps"] == 2
    assert found["train"]["tokens_per_s"] > 0 and 0 < found["train"]["mfu"] < 1
    assert abs(found["plan"]["train"]["memory_error"]) < 1
    config = json.loads((work / "out" / "train" / "config.json").read_text())
    assert config["max_position_embeddings"] == 2304
    rope = config.get("rope_scaling") or config["rope_parameters"]
    assert rope["rope_type"] == "yarn" and rope["factor"] == 1.125


@pytest.mark.slow
def test_programs_are_improved_without_a_language_model(work: Path) -> None:
    def run(name: str) -> str:
        command = [sys.executable, f"examples/text/{name}.py"]
        done = subprocess.run(command, cwd=work, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for _ in range(2):  # the second run finds the study done
        repaired = run("repair")
        assert "100% of the examples are right" in repaired
        assert "100% of those that it did not see" in repaired
    stands = re.search(r"stands (\d+) steps at first, (\d+) of 500", run("controller"))
    assert stands is not None
    assert int(stands[1]) < 20
    assert int(stands[2]) >= 475  # where gymnasium calls it solved
    found = dict(re.findall(r"^(.*?) +R² ([0-9.]+)", run("tuning"), re.MULTILINE))
    start = float(found.pop("first values"))
    assert len(found) == 3
    assert all(float(value) > start + 0.05 for value in found.values())


def test_programs_for_a_problem_are_evaluated(work: Path) -> None:
    call = ("code", "eval", "examples/code/unique.py", "--k", "1,3", "--clock", "opcodes")
    samples = ("--samples", "examples/code/unique_samples.jsonl")
    found = document(sharpen(*call, *samples, "--json", cwd=work))
    assert found["problems"]["unique"]["passed"] == [True, True, False]
    assert found["metrics"]["pass@3"]["value"] == 1.0
    assert (
        0
        < found["metrics"]["eff@1(opcodes)"]["value"]
        < found["metrics"]["eff@3(opcodes)"]["value"]
    )
