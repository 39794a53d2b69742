"""One pass over rows laid end to end against each row alone."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sharpen.align import RolloutBatch, scoring
from sharpen.align.rows.batches import pad_rows
from sharpen.align.scoring import policy_logp, states_of
from sharpen.core.model_spec import ModelSpec
from sharpen.models.decoder import DecoderLM

VOCABULARY = 50


def small_model(**changes):
    spec = ModelSpec(
        family="mistral",
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=4,
        max_positions=64,
        **changes,
    )
    model = DecoderLM(spec)
    model.init_weights(0, std=0.3)
    return model.double()


def batch_of(rows):
    ids, text, actions = pad_rows([(p, c, [True] * len(c)) for p, c in rows], 0)
    return RolloutBatch(
        input_ids=ids,
        attention_mask=text,
        action_mask=actions,
        logp_old=torch.zeros(ids.shape),
        reward=torch.zeros(len(ids)),
        group_id=torch.zeros(len(ids), dtype=torch.int64),
        finish_reason=["stop"] * len(ids),
        meta=[{}] * len(ids),
        version=torch.zeros(len(ids), dtype=torch.int64),
    )


@st.composite
def rows_with_shared_prompts(draw):
    """Rows in any order; prompts of some, and shorter ones that are not worth being shared."""
    tokens = st.integers(1, VOCABULARY - 1)
    prompts = draw(st.lists(st.lists(tokens, min_size=1, max_size=14), min_size=1, max_size=3))
    rows = st.tuples(st.sampled_from(prompts), st.lists(tokens, min_size=1, max_size=6))
    return draw(st.lists(rows, min_size=1, max_size=6))


@settings(max_examples=60, deadline=None)
@given(rows=rows_with_shared_prompts(), window=st.sampled_from([None, 5]))
def test_rows_are_scored_as_if_each_were_alone(rows, window):
    sliding = {} if window is None else {"sliding_window": window, "sliding_layers": (True, False)}
    model, batch = small_model(**sliding), batch_of(rows)
    weight = torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(1))

    def scored(part, weight):
        states = states_of(model, part, torch.float64)
        logp, _ = policy_logp(model, states, part, dtype=torch.float64)
        (logp * weight).sum().backward()
        return logp.detach(), states.last(part).detach()

    logp, last = scored(batch, weight)
    together = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for row in range(len(batch)):
        one = batch.select([row])
        width = one.input_ids.shape[1]
        alone, end = scored(one, weight[row : row + 1, :width])
        torch.testing.assert_close(logp[row : row + 1, :width], alone)
        torch.testing.assert_close(last[row : row + 1], end)
    for found, parameter in zip(together, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


@pytest.mark.parametrize(("prompt", "expected"), [(12, 12 + 3 * 5), (7, 3 * (7 + 5))])
def test_a_prompt_worth_it_is_computed_once(prompt, expected):
    rows = [(list(range(1, prompt + 1)), [20 + i] * 5) for i in range(3)]
    assert states_of(small_model(), batch_of(rows), torch.float64).hidden.shape[0] == expected


@pytest.mark.parametrize("shared", [True, False])
def test_what_fills_a_batch_up_changes_nothing(monkeypatch, shared):
    first = list(range(1, 13))
    rows = [(first if shared else [i, *first], [20 + i] * (5 + i)) for i in range(3)]
    model, batch = small_model().float(), batch_of(rows)
    found = []
    for fills in (True, False):
        monkeypatch.setattr(scoring, "prefers_onednn", lambda fills=fills: fills)
        states = states_of(model, batch)
        logp, _ = policy_logp(model, states, batch)
        gradient = torch.autograd.grad(logp.sum(), model.model.embed_tokens.weight)[0]
        found.append((states.hidden, logp, gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
