"""A language model acts: what it read and drew is what training sees."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sharpen.align.agents import Episode, LMPolicy, collect, episode_ids, to_rollout
from sharpen.align.agents.worlds import Rooms
from sharpen.models import generate
from small_models import byte_tokenizer, small_model


@pytest.mark.parametrize(
    ("reply", "action", "thought"),
    [
        ("go east", "go east", ""),
        ("The key is there.\n\ntake key\n", "take key", "The key is there."),
        ("> take key", "take key", ""),
        ("I look first.\n```\ntake key\n```", "take key", "I look first."),
        ("```text\n> `go east`\n```", "go east", ""),
        (" open door\nObservation: It is open.\n> go east", "open door", ""),
        ("", "", ""),
    ],
)
def test_the_last_line_of_a_reply_is_the_action(reply: str, action: str, thought: str) -> None:
    state = Episode(Rooms, 1).state()
    (move,) = LMPolicy(lambda prompts: [reply])([state])
    assert (move.action, move.thought) == (action, thought)


def test_a_turn_ends_where_a_model_speaks_for_the_world() -> None:
    tokenizer = byte_tokenizer(chat=False)
    assert tokenizer.eos_id is not None
    drawn = tokenizer.encode(" take key\nObservation: You have")
    reply = SimpleNamespace(text=tokenizer.decode(drawn), token_ids=drawn, logprobs=[-1.0] * 31)
    (one,) = collect(
        lambda: Rooms(max_steps=1), LMPolicy(lambda prompts: [reply], tokenizer), tasks=[1]
    )
    own = tuple(tokenizer.encode(" take key"))
    assert len(drawn) == 31 and (one.steps[0].ids, one.steps[0].action) == (own, "take key")
    assert one.steps[0].logp == (-1.0,) * len(own)
    batch = to_rollout([one], tokenizer)
    assert batch.input_ids[0][batch.action_mask[0]].tolist() == list(own)
    # Who imitates it learns to end the turn.
    ids, mask = episode_ids(one, tokenizer)
    learnt = [token for token, is_own in zip(ids, mask, strict=True) if is_own]
    assert learnt == [*own, tokenizer.eos_id]


def test_a_model_acts_and_its_tokens_are_kept() -> None:
    tokenizer, model = byte_tokenizer(chat=False), small_model(max_positions=2048)
    end = tokenizer.eos_id
    assert end is not None
    asked: list[list[int]] = []

    def reply(prompts: list[Any]) -> list[Any]:
        asked.extend(prompts)
        found = []
        for one in generate(model, prompts, max_new_tokens=6, stop_ids=(end,)):
            ids = [*one.ids, end] if len(one.ids) < 6 else list(one.ids)
            found.append(SimpleNamespace(text=tokenizer.decode(ids), token_ids=ids, logprobs=None))
        return found

    found = collect(lambda: Rooms(max_steps=3), LMPolicy(reply, tokenizer), tasks=[1, 2])
    assert len(asked) == 6  # both episodes at once, three times
    batch = to_rollout(found, tokenizer).validate(model.spec.vocab_size, eos_ids={end})
    for i, one in enumerate(found):
        ids = batch.input_ids[i].tolist()
        drawn: list[int] = []
        for number, step in enumerate(one.steps):
            prompt = asked[2 * number + i]
            assert ids[: len(prompt)] == prompt
            assert step.ids is not None
            assert ids[len(prompt) : len(prompt) + len(step.ids)] == list(step.ids)
            drawn += step.ids
        assert batch.input_ids[i][batch.action_mask[i]].tolist() == drawn
        with torch.no_grad():
            best = model(batch.input_ids[i : i + 1])[0, :-1].argmax(1)
        mask = batch.action_mask[i, 1:]
        assert torch.equal(best[mask], batch.input_ids[i, 1:][mask])  # it was greedy
