"""Whole models over several ranks: loss, every gradient, training, and Hugging Face models."""

import pytest
import torch

import distributed
from sequence_parallel_models import (
    MODELS,
    all_model_results,
    llama,
    llama_errors,
    model_of,
    model_results,
    packed_batch,
)
from sharpen.core.errors import ConfigError
from sharpen.train.sp import SPContext, hf, shard_sequence


@pytest.fixture(scope="module")
def on_two_ranks():
    """Of each rank, the results of every model and the differences of two models at once."""
    return distributed.run(all_model_results, 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(MODELS)))
def test_loss_gradients_and_training_are_those_of_one_process(on_two_ranks, case):
    _, dtype, changes = MODELS[case]
    loss, gradients, curve = model_results(None, dtype, **changes)
    limit = 1e-5 if dtype == torch.float32 else 1e-10
    for results, _ in on_two_ranks:
        found_loss, found_gradients, found_curve = results[case]
        assert abs(found_loss - loss) < limit
        worst = {
            name: float((found_gradients[name] - g).abs().max()) for name, g in gradients.items()
        }
        assert max(worst.values()) < limit, worst
        assert all(float(g.abs().max()) > 0 for g in gradients.values())
        assert len(found_curve) == len(curve)
        assert all(abs(a - b) < 1e-5 for a, b in zip(found_curve, curve, strict=True))


@pytest.mark.slow
def test_two_contexts_in_one_process_do_not_disturb_each_other(on_two_ranks):
    for _, differences in on_two_ranks:
        assert max(differences) < 1e-12


@pytest.mark.peer
@pytest.mark.slow
def test_a_llama_of_transformers_has_the_same_logits_over_ranks():
    for rank in distributed.run(llama_errors, 2):
        for whole, packed, after in rank:
            assert whole < 2e-6
            assert packed < 2e-6
            assert after == 0


def test_a_context_of_one_process_changes_nothing():
    batch, model, ctx = packed_batch(21), model_of(torch.float64), SPContext()
    local = shard_sequence(batch, ctx)
    with torch.no_grad():
        plain = model(batch["input_ids"], document_ids=batch["document_ids"])
        model.sequence = ctx
        found = model(local["input_ids"])
    # Without a context every document's positions count on from the row's start, which rotary
    # positions do not see.
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


def test_a_model_with_a_context_refuses_whole_rows_and_caches():
    model, ctx = model_of(torch.float32), SPContext()
    model.sequence = ctx
    ids = packed_batch(12)["input_ids"]
    with pytest.raises(ConfigError, match=r"no batch is sharded yet: call shard_sequence"):
        model(ids)
    shard_sequence({"input_ids": ids}, ctx)
    with pytest.raises(ConfigError, match=r"shape \[2, 8\].*has \[2, 12\].*take its context off"):
        model(ids[:, :8])
    with pytest.raises(ConfigError, match=r"cannot decode with a cache.*model.sequence = None"):
        model(ids, cache=model.new_cache(2, capacity=20))


@pytest.mark.peer
def test_enable_and_disable_leave_no_trace():
    from transformers import AttentionInterface, AttentionMaskInterface

    tables = [AttentionInterface._global_mapping, AttentionMaskInterface._global_mapping]
    names = [set(table) for table in tables]
    model, other = llama(), llama()
    ids = packed_batch(12)["input_ids"]
    with torch.no_grad():
        plain = model(ids).logits
        ctx = SPContext()
        hf.enable(model, ctx)
        local = shard_sequence({"input_ids": ids}, ctx)
        del local["document_ids"]
        torch.testing.assert_close(model(**local).logits, plain)
        torch.testing.assert_close(other(ids).logits, plain)
        with pytest.raises(ConfigError, match=r"already: call disable\(model\)"):
            hf.enable(model, ctx)
        with pytest.raises(ConfigError, match=r"attention_mask.*shard_sequence"):
            model(ids, attention_mask=torch.ones_like(ids).tril())
    model.config.attention_dropout = 0.1
    model.model.layers[0].self_attn.attention_dropout = 0.1
    with pytest.raises(ConfigError, match=r"attention dropout of 0\.1 is not supported"):
        model.train()(ids)
    hf.disable(model)
    assert [set(table) for table in tables] == names
    with pytest.raises(ConfigError, match="nothing to disable"):
        hf.disable(model)
    with pytest.raises(ConfigError, match=r"DecoderLM is no transformers model.*model.sequence"):
        hf.enable(model_of(torch.float32), ctx)
