"""A scripted model plays a world, criticizes and writes; the loop must find what helps it."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distributed import process
from sharpen.align.agents import TextWorld, collect, context_of, read_trajectories
from sharpen.align.agents.instructing import OPTIMIZERS, InstructedAgent, tune_instructions
from sharpen.align.agents.policies import LMPolicy
from sharpen.align.agents.trajectory import context_ids, to_rows, write_trajectories
from sharpen.align.agents.worlds import CalculatorTask
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.lm import LM, Budget, BudgetExhausted, RequestError, Scripted
from small_models import byte_tokenizer

GIVEN = "Open the red door."
FOUND = "First read the note."


class Doors(TextWorld):
    """One of three doors is right, and a note says which."""

    def begin(self) -> tuple[str, str]:
        self.right = ("red", "green", "blue")[self.np_random.integers(3)]
        return "Get into the garden.", "Three doors and a note."

    def possible(self) -> list[str]:
        return ["open red", "open green", "open blue", "read the note"]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        if action == "read the note":
            return f"The note says {self.right}.", 0.0, False, {}
        done = action == f"open {self.right}"
        return "The garden." if done else "A wall.", float(done), True, {"success": done}


def act(prompt: str) -> str:
    instructions, _, seen = prompt.partition("Goal: ")
    if "note" not in instructions:
        return "open red"
    found = re.search(r"The note says (\w+)", seen)
    return f"open {found[1]}" if found else "read the note"


def reply(prompt: str) -> str:
    """The agent heeds a note it is told of; the critic asks for it after an episode that failed."""
    if prompt.endswith("\n>"):
        return act(prompt)
    failed = "read the note" in prompt and "Did not reach the goal" in prompt
    if "<NEW>" in prompt:
        return f"<NEW>{FOUND if 'Nobody looks' in prompt else 'Open a door.'}</NEW>"
    if "#Instruction" in prompt:
        value = FOUND if failed else "Open a door."
        return json.dumps({"reasoning": "", "answer": "", "suggestion": {"instructions": value}})
    return "Nobody looks at the note." if failed else "It is well done."


def model(**options: Any) -> LM:
    return LM(Scripted(lambda request: reply(request.prompt), model="doors"), **options)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_instructions_are_found_from_episodes_that_failed(optimizer: str, tmp_path: Path) -> None:
    found = tune_instructions(
        Doors, model(), GIVEN, optimizer=optimizer, steps=2, run_dir=tmp_path / "run"
    )
    assert (found.instructions, found.accepted) == (FOUND, True)
    assert found.test is not None
    assert found.test["score_found"]["value"] == 1.0
    assert found.test["score_given"]["value"] < 0.6
    assert found.test["p_mcnemar"] < 0.001
    assert found.episodes <= found.allowed == 16 * 5 + 4 * 2 + 2 * 50
    assert json.loads((tmp_path / "run/result.json").read_text())["accepted"] is True
    assert (tmp_path / "run/instructions.txt").read_text() == f"{FOUND}\n"
    assert "accepted" in found.summary()


def test_a_run_that_stopped_pays_for_no_call_twice(tmp_path: Path) -> None:
    whole = tune_instructions(Doors, model(cache=tmp_path / "whole"), GIVEN, steps=2)
    few = whole.usage["calls"] - 3
    with_limit = model(cache=tmp_path / "parts", budget=Budget(max_calls=few))
    first = tune_instructions(Doors, with_limit, GIVEN, steps=2)
    assert first.usage["calls"] == few
    assert "max_calls" in first.stopped
    assert first.failed == 0
    assert (first.accepted, first.instructions) == (False, GIVEN)
    rest = tune_instructions(Doors, model(cache=tmp_path / "parts"), GIVEN, steps=2)
    assert rest.usage["calls"] == 3
    assert (rest.instructions, rest.test) == (whole.instructions, whole.test)
    again = tune_instructions(Doors, model(cache=tmp_path / "parts"), GIVEN, steps=2)
    assert again.usage["calls"] == 0
    with pytest.raises(BudgetExhausted, match="max_calls=2"):
        tune_instructions(Doors, model(budget=Budget(max_calls=2)), GIVEN)


ONE: dict[str, Any] = {"concurrency": 1}  # so that it is known how many calls a kill loses


def run_until(folder: Path, last: int) -> None:
    """A run in a process of its own, which is killed in its call after so many."""
    asked: list[str] = []

    def heard(request: Any) -> str:
        asked.append(request.prompt)
        if len(asked) > last:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply(request.prompt)

    lm = LM(Scripted(heard, model="doors"), cache=folder / "replies.sqlite")
    tune_instructions(Doors, lm, GIVEN, steps=2, run_dir=folder, **ONE)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_result(tmp_path: Path) -> None:
    lm = model(cache=tmp_path / "replies.sqlite")
    whole = tune_instructions(Doors, lm, GIVEN, steps=2, run_dir=tmp_path / "whole", **ONE)
    parts, kills = tmp_path / "parts", (1, 9)
    parts.mkdir()
    for last in kills:
        child = process(run_until, parts, last)
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert not (parts / "result.json").exists()
    lm = model(cache=parts / "replies.sqlite")
    rest = tune_instructions(Doors, lm, GIVEN, steps=2, run_dir=parts, **ONE)
    files = [(one / "instructions.txt").read_bytes() for one in (tmp_path / "whole", parts)]
    assert files[0] == files[1]
    assert replace(rest, usage={}) == replace(whole, usage={})
    assert rest.usage["calls"] == whole.usage["calls"] - sum(kills) > 0


def test_what_chance_may_have_done_is_not_accepted() -> None:
    # Five test tasks: even when all that failed succeed, McNemar's p is at least 1/16.
    found = tune_instructions(Doors, model(), GIVEN, steps=1, test=range(2000, 2005))
    assert found.found == FOUND
    assert not found.accepted
    assert found.instructions == GIVEN
    assert found.test is not None and found.test["p_mcnemar"] >= 1 / 16


def test_rubbish_changes_nothing_and_is_told() -> None:
    def rubbish(prompt: str) -> str:
        return act(prompt) if prompt.endswith("\n>") else "%%%"

    found = tune_instructions(Doors, rubbish, GIVEN, steps=1)
    assert (found.accepted, found.instructions, found.test) == (False, GIVEN, None)
    assert "instructions" in found.refused
    assert "could not be used" in found.summary()
    nonsense = tune_instructions(Doors, lambda prompt: "%%%", GIVEN, steps=1)
    assert (nonsense.score_given, nonsense.highest, nonsense.violations) == (0.0, 0.0, 0.0)
    assert "no episode earned anything" in nonsense.summary()
    lost = tune_instructions(CalculatorTask, lambda prompt: "Let me see.", steps=1)
    assert lost.violations == 1.0
    assert "forbids 100% of what was done" in lost.summary()


def test_replies_are_limited_and_proposals_of_a_turn_differ() -> None:
    engine, played = Scripted(lambda request: reply(request.prompt)), []
    found = tune_instructions(
        Doors, LM(engine), GIVEN, steps=1, on_episode=lambda: played.append(1), max_tokens=8
    )
    acting = [one for one in engine.requests if one.prompt.endswith("\n>")]
    rest = [one for one in engine.requests if not one.prompt.endswith("\n>")]
    assert {(one.max_tokens, one.stop) for one in acting} == {(8, ("\nObservation:",))}
    assert {one.max_tokens for one in rest} == {1024}
    assert len({one.seed for one in rest if "<NEW>" in one.prompt}) == 2
    assert len(played) == found.episodes


def test_episodes_that_a_model_refuses_earn_nothing() -> None:
    def short(prompt: str) -> str:
        if "The note says blue" in prompt and prompt.endswith("\n>"):
            raise RequestError("the prompt has 900 tokens; the context holds 800")
        return reply(prompt)

    found = tune_instructions(Doors, short, GIVEN, steps=2)
    assert found.failed > 0
    assert 0.4 < found.score_found < 1.0

    def none(prompt: str) -> str:
        raise RequestError("the prompt has 900 tokens; the context holds 800")

    with pytest.raises(DataError, match=r"none of 16 episodes.*holds 800.*shorter turns"):
        tune_instructions(Doors, none, GIVEN)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"optimizer": "textgrd"}, "Did you mean 'textgrad'"),
        ({"steps": 0}, "steps=0"),
        ({"reply_tokens": 0}, "reply_tokens=0"),
        ({"alpha": 1.0}, r"alpha=1\.0"),
        ({"train": []}, "tasks to learn from"),
        ({"train": range(4), "val": range(3, 9)}, "1 tasks are in two"),
        ({"test": range(5)}, "in two of train, val and test"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises((ConfigError, DataError), match=told):
        tune_instructions(Doors, model(), GIVEN, **options)


def test_an_agent_is_a_program_with_one_parameter() -> None:
    agent = InstructedAgent(Doors, model(), FOUND)
    assert [p.value for p in agent.parameters()] == [FOUND]
    told = str(agent(3).value)
    assert "Did: read the note" in told
    assert told.endswith("Reached the goal in 2 turns. Reward: 1")


def test_instructions_are_part_of_what_is_read_and_learnt(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(chat=False)
    policy = LMPolicy(lambda prompts: [act(one) for one in prompts])
    (one,) = collect(Doors, policy, tasks=[3], instructions=FOUND)
    assert one.actions[0] == "read the note"
    text = context_of(one.goal, one.steps, "The garden.", (), one.instructions)
    assert text.startswith(f"{FOUND}\nGoal: Get into the garden.\n")
    write_trajectories(tmp_path / "t.jsonl", [one])
    assert read_trajectories(tmp_path / "t.jsonl") == [one]
    start = context_ids(one.goal, (), one.steps[0].observation, tokenizer, (), FOUND)
    batch = to_rows([one], tokenizer)
    assert batch.input_ids[0, : len(start)].tolist() == start
    assert not batch.action_mask[0, : len(start)].any()
