"""Episodes of agents as rows: read, looked at, tokenized, learnt by heart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from align_stage import Stage
from sharpen.align.agents import Step, Trajectory, to_rows, write_trajectories
from sharpen.align.rows import inspect_rows, read_feedback, row_batch, tokenize_rows
from sharpen.core.errors import DataError
from small_models import byte_tokenizer, save_small_model

TOKENIZER = byte_tokenizer(chat=False)
STEPS = (
    Step(observation="A room.", action="go east", thought="Hm."),
    Step(observation="A door.", action="open", reward=1.0),
)
WON = Trajectory(goal="Out!", steps=STEPS, success=True, reward=1.0, lessons=("Look.",))
LOST = replace(WON, success=False, reward=0.0, task=1, steps=STEPS[:1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "played.jsonl"
    write_trajectories(path, [WON, LOST, replace(WON, task=2, goal="Away!")])
    return path


def test_rows_are_what_to_rows_makes(file: Path) -> None:
    found = read_feedback(file)
    assert (found.kind, found.skipped) == ("trajectory", {"failed episode": 1})
    batch = row_batch(tokenize_rows(found.rows, TOKENIZER).rows)
    wanted = to_rows([WON, replace(WON, task=2, goal="Away!")], TOKENIZER)
    assert torch.equal(batch.input_ids, wanted.input_ids)
    assert torch.equal(batch.action_mask, wanted.action_mask)
    assert len(read_feedback(file, episodes="all")) == 3


def test_drawn_tokens_are_kept_where_they_say_the_same(tmp_path: Path) -> None:
    end = TOKENIZER.eos_id or 0
    drawn = (*TOKENIZER.encode("ope"), *TOKENIZER.encode("n"))  # cut off, without an end
    others = (*TOKENIZER.encode("xx"), end)  # of another tokenizer
    for ids, wanted in ((drawn, [*drawn, end]), (others, [*TOKENIZER.encode(" open"), end])):
        one = replace(WON, steps=(replace(STEPS[1], ids=ids, logp=(-1.0,) * len(ids)),))
        write_trajectories(tmp_path / "t.jsonl", [one])
        (row,) = tokenize_rows(read_feedback(tmp_path / "t.jsonl").rows, TOKENIZER).rows
        assert row.completions[0] == wanted
    too_high = replace(WON, steps=(replace(STEPS[1], ids=(10**6,)),))
    write_trajectories(tmp_path / "t.jsonl", [too_high])
    (row,) = tokenize_rows(read_feedback(tmp_path / "t.jsonl").rows, TOKENIZER).rows
    assert row.completions[0] == [*TOKENIZER.encode(" open"), end]


def test_long_episodes_are_treated_like_other_rows(file: Path) -> None:
    rows = read_feedback(file).rows
    whole = tokenize_rows(rows, TOKENIZER).rows
    limit = len(whole[0]) - 3
    with pytest.raises(DataError, match=r"played\.jsonl:1.*on_long=drop"):
        tokenize_rows(rows, TOKENIZER, max_length=limit)
    assert tokenize_rows(rows, TOKENIZER, max_length=limit, on_long="drop").dropped
    cut = tokenize_rows(rows, TOKENIZER, max_length=limit, on_long="cut")
    assert cut.rows[0].completions[0] == whole[0].completions[0][:-3]
    assert cut.rows[0].masks[0] == whole[0].masks[0][:-3]


def test_they_are_looked_at_before_training(file: Path) -> None:
    found = inspect_rows(file, TOKENIZER)
    assert (found.kind, found.rows) == ("trajectory", 3)
    assert found.balance == {"successful": 2, "failed": 1}
    assert found.lengths["prompt"]["max"] > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": []}, "'steps' is empty"),
        ({"steps": [{"action": "a"}]}, "'observation' of a step"),
        ({"success": "yes"}, "'success' is 'yes'"),
        ({"reward": None}, "'reward' is None"),
        ({"schema": 9}, "schema 9"),
        ({"more": 1}, "no trajectory"),
    ],
)
def test_bad_ones_are_named_or_left_out(file: Path, change: dict[str, Any], told: str) -> None:
    bad = json.dumps({**WON.to_json(), **change})
    file.write_text(file.read_text() + bad + "\n")
    with pytest.raises(DataError, match=rf"played\.jsonl:4.*{told}"):
        read_feedback(file)
    assert len(read_feedback(file, skip_bad=True)) == 2


def test_other_methods_and_hopeless_files_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DataError, match="'trajectory' cannot become 'preference'"):
        read_feedback(file, kind="preference")
    write_trajectories(tmp_path / "lost.jsonl", [LOST])
    with pytest.raises(DataError, match=r"none of 1 episodes succeeded.*episodes=all"):
        read_feedback(tmp_path / "lost.jsonl")


def test_an_agent_imitates_what_succeeded(tmp_path: Path, file: Path) -> None:
    model = save_small_model(tmp_path / "model", max_positions=256)
    own = {"method": "sft", "data": str(file), "steps": 20, "batch": 2, "lr": 3e-3}
    done = Stage(model, tmp_path / "run", **own)
    results = done.result.results
    assert results["loss_last"] < results["loss_first"] / 2
    assert results["dropped"] == {"failed episode": 1}
    # Of every step both episodes: the words and the end of two turns each.
    words = sum(len(TOKENIZER.encode(f" {step.text}")) + 1 for step in STEPS)
    assert results["labels"] == 20 * 2 * words
