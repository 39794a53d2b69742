import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.models import Generation, generate
from sharpen.models.generation import DecodeBatch
from small_models import small_model

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17]]


def greedy_without_cache(model, prompt, count):
    """The oracle: the whole text through the model again for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"family": "qwen3"},
        {"family": "qwen2"},
        {"family": "mistral", "sliding_window": 4},
    ],
    ids=lambda c: c.get("family", "llama"),
)
def test_batch_gives_what_each_prompt_gives_alone_without_a_cache(changes):
    model = small_model(**changes)
    done = generate(model, PROMPTS, max_new_tokens=12)
    for prompt, one in zip(PROMPTS, done, strict=True):
        assert one == Generation(
            ids=greedy_without_cache(model, prompt, 12), finish_reason="length"
        )


def test_a_stop_token_ends_its_row_alone_and_is_left_out():
    model = small_model()
    whole = [g.ids for g in generate(model, PROMPTS, max_new_tokens=12)]
    stop = whole[0][5]
    done = generate(model, PROMPTS, max_new_tokens=12, stop_ids={stop})
    for ids, one in zip(whole, done, strict=True):
        cut = ids.index(stop) if stop in ids else None
        assert one.ids == ids[:cut]
        assert one.finish_reason == ("length" if cut is None else "stop")


def test_the_callback_sees_every_token_and_may_end_the_batch():
    model, seen = small_model(), {}

    def on_tokens(rows, ids):
        for row, token in zip(rows, ids, strict=True):
            seen.setdefault(row, []).append(token)
        return len(seen[0]) == 4

    done = generate(model, PROMPTS, max_new_tokens=12, on_tokens=on_tokens)
    assert [g.ids for g in done] == [seen[i] for i in range(4)]
    assert [(len(g.ids), g.finish_reason) for g in done] == [(4, "length")] * 4


def test_the_callback_sees_the_last_token_too():
    seen = []
    generate(small_model(), [[3]], max_new_tokens=3, on_tokens=lambda rows, ids: seen.append(ids))
    assert len(seen) == 3


def test_choose_gets_the_logits_of_the_rows_still_going():
    sizes = []

    def second_best(logits):
        sizes.append(logits.shape)
        return logits.topk(2).indices[:, 1]

    model = small_model()
    done = generate(model, [[5, 6]], max_new_tokens=2, choose=second_best)
    with torch.no_grad():
        expected = int(model(torch.tensor([[5, 6]]))[0, -1].topk(2).indices[1])
    assert done[0].ids[0] == expected
    assert sizes == [(1, model.spec.vocab_size)] * 2


def test_training_mode_is_given_back():
    model = small_model().train()
    generate(model, [[1]], max_new_tokens=1)
    assert model.training


def test_no_prompts_give_nothing():
    assert generate(small_model(), [], max_new_tokens=1) == []


@pytest.mark.parametrize(
    ("prompts", "count", "error"),
    [
        ([[]], 1, DataError),
        ([[304]], 1, DataError),
        ([[-1]], 1, DataError),
        ([[1]], 0, ConfigError),
    ],
)
def test_bad_input_is_refused(prompts, count, error):
    with pytest.raises(error):
        generate(small_model(), prompts, max_new_tokens=count)


@given(
    prompts=st.lists(st.lists(st.integers(3, 60), min_size=1, max_size=9), min_size=1, max_size=4),
    steps=st.integers(0, 4),
    data=st.data(),
)
def test_rows_that_leave_do_not_disturb_the_others(prompts, steps, data):
    model = small_model()
    ids = {row: [] for row in range(len(prompts))}
    batch = DecodeBatch(model, prompts)

    def advance():
        chosen = batch.logits.argmax(-1)
        for row, token in zip(batch.rows, chosen.tolist(), strict=True):
            ids[row].append(token)
        return chosen

    chosen = advance()
    for _ in range(steps):
        batch.step(chosen)
        chosen = advance()
    kept = data.draw(st.sets(st.sampled_from(range(len(prompts))), min_size=1))
    batch.keep(sorted(kept))
    assert batch.rows == sorted(kept)
    chosen = chosen[sorted(kept)]
    for _ in range(3):
        batch.step(chosen)
        chosen = advance()
    alone = generate(model, prompts, max_new_tokens=12)
    for row, own in ids.items():
        assert own == alone[row].ids[: len(own)]
