import pytest
import torch

from kv_reading import random_ids
from sharpen.compress.kv import (
    EvictionConfig,
    H2OPolicy,
    KeptText,
    LocretPolicy,
    RetainingHeads,
    SnapKVPolicy,
    save_heads,
)
from sharpen.compress.kv.locret import norms_fingerprint
from sharpen.core.errors import ConfigError, DataError
from sharpen.models.decode import prepare_for_inference
from sharpen.serve.engine import Engine
from sharpen.serve.llm import LLM
from sharpen.serve.sampling import SamplingParams
from small_models import byte_tokenizer, save_small_model, small_model, small_spec

CONFIG = EvictionConfig(budget=12, chunk=8, stabilizers=4, local=5)
GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
BLOCK = 2 * 2 * 2 * 4 * 16 * 4  # keys and values, layers, heads, tokens, size, float32


def locret():
    heads = RetainingHeads(small_spec(), 16)
    heads.init_weights(3)
    return LocretPolicy(heads, CONFIG)


POLICIES = [locret(), H2OPolicy(CONFIG), SnapKVPolicy(CONFIG, window=4)]


def new_engine(policy, blocks=64, **settings):
    model = prepare_for_inference(small_model())
    return Engine(
        model,
        byte_tokenizer(),
        block_size=4,
        cache_bytes=blocks * BLOCK,
        kv_policy=policy,
        **settings,
    )


def run(engine, prompts, params=GREEDY):
    ids = [[] for _ in prompts]
    for prompt, found in zip(prompts, ids, strict=True):
        engine.submit(prompt, params, lambda piece, found=found: found.extend(piece.ids))
    while engine.step():
        assert engine.scheduler.pool.num_used <= engine.scheduler.pool.count
    assert engine.scheduler.pool.num_used == 0
    return ids


def alone(policy, prompt):
    """Greedy tokens of a prompt with a cache of its own."""
    text = KeptText(prepare_for_inference(small_model()), policy, len(prompt), new_tokens=6)
    found = [int(text.read(prompt)[0].argmax())]
    while len(found) < 6:
        found.append(int(text.read(found[-1:])[0].argmax()))
    return found


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("batched", [9, 64])
def test_tokens_do_not_depend_on_neighbours_parts_or_preemption(policy, batched):
    prompts = [random_ids(count, count) for count in (45, 70, 6, 33, 58)]
    expected = [alone(policy, prompt) for prompt in prompts]
    roomy = new_engine(policy, max_batch=4, max_batched_tokens=batched)
    assert run(roomy, prompts) == expected
    crowded = new_engine(policy, blocks=14, max_batch=4, max_batched_tokens=batched)
    assert run(crowded, prompts) == expected


def test_growing_texts_are_preempted_and_come_back_the_same():
    policy = POLICIES[0]
    prompts = [random_ids(count, count) for count in (45, 70, 33)]
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    expected = [run(new_engine(policy), [prompt], params)[0] for prompt in prompts]
    crowded = new_engine(policy, blocks=17, max_batch=3)
    assert run(crowded, prompts, params) == expected
    assert crowded.scheduler.num_preemptions > 0


def test_long_prompts_share_no_prefix_and_short_ones_do():
    engine = new_engine(POLICIES[0])
    run(engine, [random_ids(45)])
    run(engine, [random_ids(45)])
    assert engine.scheduler.prefix_hits == 0
    run(engine, [random_ids(16)])
    run(engine, [random_ids(16)])
    assert engine.scheduler.prefix_hits == 15  # all but the last token


def test_a_prompt_longer_than_the_cache_is_served():
    ids = random_ids(200)
    with pytest.raises(DataError, match="needs 52"):
        new_engine(None, blocks=8).submit(ids, GREEDY, print)
    assert run(new_engine(POLICIES[0], blocks=8), [ids]) == [alone(POLICIES[0], ids)]


def test_a_budget_that_holds_all_changes_nothing():
    prompts = [random_ids(45), random_ids(20, 1)]
    assert run(new_engine(H2OPolicy(EvictionConfig(budget=64))), prompts) == run(
        new_engine(None), prompts
    )


def test_a_cancelled_request_leaves_nothing_behind():
    engine = new_engine(POLICIES[0], max_batched_tokens=20)
    made = engine.submit(random_ids(80), GREEDY, lambda piece: None)
    engine.step()
    assert engine._retentions
    engine.cancel(made)
    engine.run()
    assert not engine._retentions
    assert engine.scheduler.pool.num_used == 0


def test_llm_takes_policies_by_name(tmp_path):
    save_small_model(tmp_path / "m")
    heads = RetainingHeads(small_spec(), 16, fingerprint=norms_fingerprint(small_model()))
    heads.init_weights(3)
    save_heads(heads, tmp_path / "heads")
    prompt = random_ids(150)
    options = {"dtype": "float32", "max_context": 200}
    found = {}
    for name, more in (("full", {}), ("locret", {"locret_heads": tmp_path / "heads"})):
        budget = {} if name == "full" else {"kv_budget": 24}
        llm = LLM(tmp_path / "m", kv_policy=name, **budget, **more, **options)
        found[name] = llm.generate([prompt], GREEDY)[0].outputs[0].ids
    config = EvictionConfig(budget=24)
    assert found["locret"] == alone(LocretPolicy(heads, config, sinks=4), prompt)
    assert found["full"] == alone(None, prompt)
    by_object = LLM(tmp_path / "m", kv_policy=LocretPolicy(heads, config, sinks=4), **options)
    assert by_object.generate([prompt], GREEDY)[0].outputs[0].ids == found["locret"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kv_policy": "newest"}, "window, sinks"),
        ({"kv_policy": "locret"}, "locret train"),
        ({"kv_policy": "h2o", "locret_heads": "x"}, "go together"),
        ({"kv_budget": 8}, "kv_budget=8"),
        ({"kv_policy": POLICIES[1], "kv_budget": 8}, "its own budget"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, told):
    save_small_model(tmp_path / "m")
    with pytest.raises(ConfigError, match=told):
        LLM(tmp_path / "m", dtype="float32", **options)


def test_speculation_guesses_within_a_policy():
    from sharpen.serve.speculation import Speculation

    prompt = random_ids(9) * 6
    plain = run(new_engine(POLICIES[0]), [prompt])
    guessing = new_engine(POLICIES[0], speculation=Speculation.parse("ngram:k=4,n=2"))
    assert run(guessing, [prompt]) == plain
    assert torch.is_inference_mode_enabled() is False
