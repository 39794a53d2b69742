import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sharpen.align.agents import (
    Step,
    Trajectory,
    context_ids,
    context_of,
    read_trajectories,
    to_rollout,
    to_rows,
    write_trajectories,
)
from sharpen.core.errors import DataError, FileFormatError, MissingFileError
from small_models import byte_tokenizer

TOKENIZER = byte_tokenizer(chat=False)
END = TOKENIZER.eos_id
STEPS = (
    Step(observation="A room.", action="go east", thought="Hm."),
    Step(observation="A door.", action="open", reward=1.0, cost=2.0),
)
ONE = Trajectory(goal="Out!", steps=STEPS, success=True, reward=1.0, task=7, lessons=("Look.",))


def test_only_the_models_words_and_their_ends_are_actions() -> None:
    batch = to_rollout([ONE], TOKENIZER, version=3).validate(
        TOKENIZER.vocab_size, eos_ids={END or 0}
    )
    pieces = [
        ("Goal: Out!\nLesson: Look.\nObservation: A room.\n>", False),
        (" Hm.\ngo east", True),
        (None, True),
        ("\nObservation: A door.\n>", False),
        (" open", True),
        (None, True),
    ]
    ids: list[int] = []
    mask: list[bool] = []
    for text, is_action in pieces:
        some = [END or 0] if text is None else TOKENIZER.encode(text)
        ids += some
        mask += [is_action] * len(some)
    assert batch.input_ids[0].tolist() == ids
    assert batch.action_mask[0].tolist() == mask
    assert batch.finish_reason == ["stop"]
    assert batch.version.tolist() == [3]
    assert batch.meta[0]["success"] is True
    rows = to_rows([ONE], TOKENIZER)
    assert torch.equal(rows.input_ids, batch.input_ids)
    assert torch.equal(rows.action_mask, batch.action_mask)


def test_what_a_model_reads_is_what_training_sees() -> None:
    batch = to_rollout([ONE], TOKENIZER)
    ids = batch.input_ids[0].tolist()
    for at, step in enumerate(STEPS):
        prompt = context_ids(ONE.goal, STEPS[:at], step.observation, TOKENIZER, ONE.lessons)
        said = [*TOKENIZER.encode(f" {step.text}"), END]
        assert ids[: len(prompt) + len(said)] == prompt + said
        text = TOKENIZER.decode(prompt, skip_special=True)
        assert text == context_of(ONE.goal, STEPS[:at], step.observation, ONE.lessons)


def test_drawn_tokens_are_kept_and_their_probabilities_line_up() -> None:
    drawn = (*TOKENIZER.encode("op"), *TOKENIZER.encode("en"))
    logp = (-0.1, -0.2, -0.3, -0.4)
    cut = replace(STEPS[1], ids=drawn, logp=logp)
    other = replace(ONE, steps=(STEPS[0], cut), task=8, reward=0.0)
    batch = to_rollout([ONE, other, ONE], TOKENIZER).validate(eos_ids={END or 0})
    assert batch.finish_reason == ["stop", "length", "stop"]
    assert batch.group_id.tolist() == [0, 1, 0]
    length = int(batch.attention_mask[1].sum())
    assert batch.logp_old[1, length - 4 : length].tolist() == pytest.approx(list(logp))
    assert batch.logp_old[0].abs().sum() == 0
    with pytest.raises(DataError, match="2 log-probabilities for 4 tokens"):
        to_rollout([replace(ONE, steps=(replace(cut, logp=(0.0, 0.0)),))], TOKENIZER)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no trajectories"):
        to_rollout([], TOKENIZER)
    with pytest.raises(DataError, match="task 7 has no steps"):
        to_rows([replace(ONE, steps=())], TOKENIZER)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    drawn = replace(STEPS[0], ids=(1, 2), logp=(-1.0, -2.0))
    some = [ONE, replace(ONE, steps=(drawn,), meta={"a": [1]}, source="expert")]
    write_trajectories(file, some)
    assert read_trajectories(file) == some
    assert json.loads(file.read_text().splitlines()[0])["schema"] == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON"),
        ("[]", "an object"),
        ("{}", "schema None"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1, "goal": "x"}', "no trajectory"),
        (
            '{"schema": 1, "goal": "x", "success": true, "reward": 1, "steps": [{"action": 1}]}',
            "'observation' of a step",
        ),
    ],
)
def test_damaged_files_are_named_by_line(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "t.jsonl"
    write_trajectories(file, [ONE])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(FileFormatError, match=rf"t\.jsonl:2.*{told}"):
        read_trajectories(file)
    with pytest.raises(MissingFileError):
        read_trajectories(tmp_path / "none.jsonl")
