import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plan_profile import pretend
from small_models import save_small_model

Invoke = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_small_model(tmp_path / "base")
    rows = [{"prompt": f"{i} + 1 =", "completion": str(i + 1)} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "sharpen: 1\nname: demo\nmodel: ./base\n"
        "data: {source: {path: rows.jsonl}, format: prompt_completion, max_tokens: 64}\n"
        "train: {method: lora, rank: 4, steps: 2, global_batch: 2, micro_batch: 2}\n"
    )
    monkeypatch.chdir(tmp_path)
    pretend(tmp_path, monkeypatch)
    return tmp_path / "recipe.yaml"


def test_modules_of_a_recipes_model_take_its_settings(invoke: Invoke, recipe: Path) -> None:
    done = invoke("bench", "module", recipe, "--repeats", 1, "--json")
    assert done.code == 0, done
    config = json.loads(done.out)["config"]
    assert (config["batch"], config["seq_len"], config["train"]["method"]) == (2, 64, "lora")
    assert (config["document_tokens"], config["labelled"]) == (145, 0.3)


def test_modules_of_a_model_and_a_report(invoke: Invoke, recipe: Path) -> None:
    options = ("--seq", 32, "--batch", 1, "--method", "full", "--repeats", 1)
    done = invoke("bench", "module", "base", *options, "--output", "modules.html")
    assert done.code == 0, done
    assert "head and loss" in done.out and "whole step" in done.out
    assert Path("modules.html").exists()


@pytest.mark.slow
def test_options_are_compared_with_the_recipe(invoke: Invoke, recipe: Path) -> None:
    over = ("--over", "train.dtype=bfloat16", "--steps", 2, "--rounds", 1)
    done = invoke("bench", "train", recipe, *over, "--output", "options.html")
    assert done.code == 0, done
    assert "as it is" in done.out and "train.dtype=bfloat16" in done.out
    assert "round 1: train.dtype=bfloat16" in done.err
    assert Path("options.html").exists()


def test_collectives_between_two_processes(invoke: Invoke, recipe: Path) -> None:
    done = invoke("bench", "collectives", "--sizes", "4", "--repeats", 1, "--json")
    assert done.code == 0, done
    assert {row["bytes"] for row in json.loads(done.out)["rows"]} == {4096}


def test_options_combine_in_a_grid() -> None:
    from sharpen.cli.bench import _cells

    over = ["train.dtype=float32,bfloat16", "train.rank=4,8"]
    assert [c.overrides for c in _cells(over, False)] == [
        ("train.dtype=float32",),
        ("train.dtype=bfloat16",),
        ("train.rank=4",),
        ("train.rank=8",),
    ]
    assert [c.name for c in _cells(over, True)][:2] == [
        "train.dtype=float32, train.rank=4",
        "train.dtype=float32, train.rank=8",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "recipe.yaml", "--over", "train.dtype"), "KEY=a,b,c"),
        (("collectives", "--sizes", "x"), "numbers of KiB"),
        (("collectives", "--nproc", "1"), "nproc=1"),
        (("module", "base", "train.rank=4"), "overrides need a recipe"),
        (("module", "base", "--dtype", "float8"), "float8"),
        (("train", "recipe.yaml", "train.rnak=4"), "rnak"),
    ],
)
def test_wrong_usage_is_code_2(
    invoke: Invoke, recipe: Path, words: tuple[str, ...], message: str
) -> None:
    done = invoke("bench", *words, "--json")
    assert done.code == 2, done
    assert message in json.loads(done.out)["error"]["message"]
