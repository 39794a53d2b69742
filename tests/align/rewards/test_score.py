"""Rewards from a reward model: its own scores, whatever shares a call, and learning from them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from align_stage import PAIRS, Stage, align
from sharpen.align.rewards import find_reward
from sharpen.align.score_model import load_score_model
from sharpen.align.stages import ALIGN
from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError
from sharpen.core.recipe import load_recipe
from sharpen.core.run import predict
from sharpen.models import load_model
from small_models import byte_tokenizer, save_small_model


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def judge(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that prefers what its pairs prefer."""
    folder = tmp_path_factory.mktemp("judge") / "run"
    return align(start, folder, PAIRS, method="rm", steps=20, batch=6, lr=3e-3)


def alone(judge: Path, text: str) -> float:
    """The score of a text and its end token, by one plain pass."""
    tokenizer = byte_tokenizer()
    assert tokenizer.eos_id is not None
    model = load_score_model(judge)
    with torch.no_grad():
        states = model.hidden(torch.tensor([[*tokenizer.encode(text), tokenizer.eos_id]]))
        return float(model.get_submodule("score")(states[0, -1]))


def test_scores_are_those_of_each_text_alone(judge: Path) -> None:
    prompts = [row["prompt"] for row in PAIRS]
    texts = ["ba", "", "a much longer answer", "x", "gh", "kl" * 9]
    expected = [alone(judge, prompt + text) for prompt, text in zip(prompts, texts, strict=True)]
    for batch in (1, 4, 32):
        function = find_reward("score_model", {"path": str(judge), "batch": batch})
        assert function(prompts, texts, [{}] * 6) == pytest.approx(expected, abs=1e-5)


def test_what_is_preferred_gets_more(judge: Path) -> None:
    function = find_reward("score_model", {"path": str(judge)})
    prompts = [row["prompt"] for row in PAIRS]
    good, bad = (
        function(prompts, [row[key] for row in PAIRS], [{}] * 6) for key in ("chosen", "rejected")
    )
    assert all(a is not None and b is not None and a > b for a, b in zip(good, bad, strict=True))


def test_a_text_that_is_too_long_gets_none(judge: Path) -> None:
    function = find_reward("score_model", {"path": str(judge)})
    found = function(["a "] * 3, ["b", "c" * 300, ""], [{}] * 3)
    assert [value is None for value in found] == [False, True, False]


def test_messages_are_read_through_the_chat_template(judge: Path) -> None:
    function = find_reward("score_model", {"path": str(judge)})
    chat = find_reward("score_model", {"path": str(judge), "chat": True})
    found = function([[{"role": "user", "content": "ab "}]], ["ba"], [{}])
    assert found == pytest.approx(chat(["ab "], ["ba"], [{}]))
    assert found != pytest.approx(function(["ab "], ["ba"], [{}]))


def test_grpo_learns_from_a_reward_model_in_processes_of_its_own(
    start: Path, judge: Path, tmp_path: Path
) -> None:
    reward = {"uses": "score_model", "options": {"path": str(judge)}, "workers": 1, "chunk": 16}
    made = align(
        start,
        tmp_path / "run",
        [{"prompt": row["prompt"]} for row in PAIRS],
        method="grpo",
        steps=2,
        batch=4,
        lr=1e-3,
        reward=reward,
        sampling={"max_tokens": 8},
    )
    before, after = load_model(start), load_model(made)
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_what_is_no_reward_model_is_refused(start: Path) -> None:
    with pytest.raises(FileFormatError, match="no reward model"):
        find_reward("score_model", {"path": str(start)})([""], ["a"], [{}])
    with pytest.raises(ConfigError, match="batch=0"):
        find_reward("score_model", {"path": str(start), "batch": 0})


def test_its_folder_may_be_relative_to_the_recipe(
    judge: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (there / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    shutil.copytree(judge, there / "judge")
    own = {
        "method": "grpo",
        "data": "prompts.jsonl",
        "steps": 1,
        "batch": 2,
        "generations": 2,
        "sampling": {"max_tokens": 4},
        "reward": {"uses": "score_model", "options": {"path": "judge"}, "workers": 0},
    }
    (there / "recipe.yaml").write_text(
        json.dumps({"sharpen": 1, "name": "x", "model": str(start), "rl": {"uses": "align", **own}})
    )
    recipe = load_recipe(there / "recipe.yaml")
    assert predict(recipe)["rl"].peak_bytes > 0
    assert len(Stage(start, there, **own).metrics["reward"]) == 1
    spec = recipe.stage("rl")
    before = ALIGN.fingerprint(spec.config, recipe.context(spec))
    (there / "judge" / "more").write_text("x")
    assert ALIGN.fingerprint(spec.config, recipe.context(spec)) != before  # another model
    shutil.rmtree(there / "judge")
    with pytest.raises(MissingFileError, match=r"elsewhere/judge and .*there/judge"):
        predict(recipe)
    made_before = {"uses": "align", "method": "rm", "data": "prompts.jsonl"}
    top = {"sharpen": 1, "name": "x", "model": str(start), "rm": made_before}
    (there / "recipe.yaml").write_text(json.dumps({**top, "rl": {"uses": "align", **own}}))
    assert predict(load_recipe(there / "recipe.yaml"))["rl"].peak_bytes > 0
