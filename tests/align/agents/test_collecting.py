import numpy as np
import pytest

from sharpen.align.agents import (
    LMPolicy,
    Move,
    State,
    TablePolicy,
    collect,
    context_ids,
    context_of,
    process_mc,
    step_pairs,
)
from sharpen.align.agents.environment import TextWorld
from sharpen.align.agents.pairs import pair_rows
from sharpen.align.agents.values import outcome
from sharpen.align.agents.worlds import Rooms
from sharpen.align.rows import pair_batch, tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.core.errors import ConfigError, DataError
from small_models import byte_tokenizer


class Coins(TextWorld):
    """Three steps; each 'good' earns 1, each 'bad' nothing. So every value is known."""

    def begin(self) -> tuple[str, str]:
        return "Earn.", "step 0"

    def possible(self) -> list[str]:
        return ["good", "bad"]

    def act(self, action: str) -> tuple[str, float, bool, dict[str, object]]:
        reward = float(action == "good")
        return f"step {self.taken}", reward, self.taken == 3, {"success": reward == 1.0}


def test_episodes_repeat_and_differ_by_draw() -> None:
    first = collect(Rooms, TablePolicy(), 3, tasks=range(4))
    again = collect(Rooms, TablePolicy(), 3, tasks=range(4))
    assert [one.actions for one in first] == [one.actions for one in again]
    assert [one.task for one in first] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len({one.actions for one in first[:3]}) == 3
    other = collect(Rooms, TablePolicy(), 3, tasks=range(4), seed=1)
    assert [one.actions for one in first] != [one.actions for one in other]
    assert any(not one.success for one in first)


def test_branches_share_their_beginning_and_differ_at_one_step() -> None:
    found = collect(Coins, TablePolicy(), 2, tasks=[3], explore="branch", width=1)
    root, *others = found
    assert len(root.steps) == 3
    assert len(others) == 6  # at each step the other action, twice
    for number, one in enumerate(others):
        at = number // 2
        assert one.actions[:at] == root.actions[:at]
        assert one.actions[at] != root.actions[at]


def test_branches_at_some_steps_only() -> None:
    found = collect(Coins, TablePolicy(), 2, tasks=range(12), explore="branch", width=1, points=1)
    assert len(found) == 12 * 3
    parted = set()
    for root, first, second in zip(found[::3], found[1::3], found[2::3], strict=True):
        (at, *_) = [i for i in range(3) if first.actions[i] != root.actions[i]]
        assert second.actions[: at + 1] == first.actions[: at + 1]
        parted.add(at)
    assert parted == {0, 1, 2}
    with pytest.raises(ConfigError, match="points=0"):
        collect(Coins, TablePolicy(), explore="branch", points=0)


class Held(Coins):
    """Cannot be copied."""

    def begin(self) -> tuple[str, str]:
        self.open = (one for one in "abc")
        return super().begin()


def test_a_world_that_cannot_be_copied_is_named() -> None:
    assert len(collect(Held, TablePolicy(), 1, tasks=range(2))) == 2
    with pytest.raises(ConfigError, match=r"Held cannot be copied.*without branches"):
        collect(Held, TablePolicy(), 1, tasks=range(2), explore="branch")


def test_pairs_prefer_what_earned_more() -> None:
    found = collect(Coins, TablePolicy(), 8, tasks=range(5), explore="branch")
    pairs = step_pairs(found, margin=0.5, min_visits=2)
    assert pairs
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("good", "bad")}
    assert all(pair.margin >= 0.5 for pair in pairs)
    assert not step_pairs(found, margin=3.5)
    with pytest.raises(ConfigError, match="margin=0"):
        step_pairs(found, margin=0)


def test_pairs_learn_from_the_action_alone() -> None:
    tokenizer = byte_tokenizer(chat=False)
    found = collect(Coins, TablePolicy(), 4, tasks=range(3), explore="branch")
    pairs = [one for one in step_pairs(found, margin=0.5) if one.steps]
    rows = [parse_row(row, "pairs") for row in pair_rows(pairs)]
    batch = pair_batch(tokenize_rows(rows, tokenizer).rows)
    for i, pair in enumerate(pairs):
        learned = batch.input_ids[i][batch.action_mask[i]].tolist()
        assert tokenizer.decode(learned[:-1]) == f" {pair.chosen}"
        prompt = batch.input_ids[i][: int(batch.action_mask[i].int().argmax())].tolist()
        assert tokenizer.decode(prompt) == context_of(pair.goal, pair.steps, pair.observation)
    assert batch.margin is not None


def test_steps_are_worth_what_they_earn() -> None:
    one = collect(Coins, TablePolicy(), 1, tasks=[0])[0]
    found = process_mc(Coins, one, TablePolicy(), 400)
    assert found.values == [
        pytest.approx(1.5, abs=0.15),
        pytest.approx(1.0, abs=0.12),
        pytest.approx(0.5, abs=0.1),
        0.0,
    ]
    wanted = [(1.0 if action == "good" else 0.0) - 0.5 for action in one.actions]
    assert found.rewards == pytest.approx(wanted, abs=0.2)
    assert sum(found.rewards) == pytest.approx(one.reward - found.values[0])
    assert outcome(one) == float(one.actions[-1] == "good")
    with pytest.raises(DataError, match="sees something else"):
        process_mc(Rooms, one, TablePolicy())
    with pytest.raises(ConfigError, match="n_rollouts=0"):
        process_mc(Coins, one, TablePolicy(), 0)


class Reply:
    def __init__(self, text: str, ids: list[int], logprobs: list[float] | None) -> None:
        self.text, self.token_ids, self.logprobs = text, ids, logprobs


def test_a_language_model_reads_texts_or_tokens() -> None:
    state = State(goal="Go.", observation="A room.", actions=(), random=np.random.default_rng(0))
    prompts: list[object] = []

    def generate(given: list[object]) -> list[object]:
        prompts.extend(given)
        return ["I think.\nSo: \n go east ", Reply("stay", [1, 2], [-1.0, -2.0])][: len(given)]

    moves = LMPolicy(generate)([state, state])
    assert prompts == [context_of("Go.", (), "A room.")] * 2
    assert moves[0] == Move(action="go east", thought="I think.\nSo:")
    assert moves[1] == Move(action="stay", ids=(1, 2), logp=(-1.0, -2.0))
    prompts.clear()
    tokenizer = byte_tokenizer(chat=False)
    LMPolicy(generate, tokenizer)([state])
    assert prompts == [context_ids("Go.", (), "A room.", tokenizer)]
    short = LMPolicy(lambda given: [Reply("stay", [1, 2], [-1.0])])([state])
    assert short == [Move(action="stay", ids=(1, 2))]
    with pytest.raises(DataError, match="0 completions for 1"):
        LMPolicy(lambda given: [])([state])
    with pytest.raises(DataError, match="tells what may be done"):
        TablePolicy()([state])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="explore='all'"):
        collect(Coins, TablePolicy(), explore="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n=0"):
        collect(Coins, TablePolicy(), 0)
