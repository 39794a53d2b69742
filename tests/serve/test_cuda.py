"""The engine on a CUDA device: the tokens of the CPU, recorded steps and all that reads logits."""

import pytest
import torch

from sharpen.compress.kv import EvictionConfig, H2OPolicy, SnapKVPolicy
from sharpen.core.errors import OutOfMemoryError
from sharpen.models.decode import prepare_for_inference
from sharpen.models.paged import PagedPart
from sharpen.serve.engine import Engine
from sharpen.serve.llm import LLM
from sharpen.serve.sampling import SamplingParams
from small_models import byte_tokenizer, save_small_adapter, save_small_model, small_model

pytestmark = pytest.mark.gpu

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
PROMPTS = [[7 + (i * j) % 290 for j in range(3 + 5 * i)] for i in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


def both(folder, **settings):
    return [LLM(folder, dtype="float32", device=device, **settings) for device in ("cpu", "cuda")]


def ids(outputs):
    return [[one.ids for one in output.outputs] for output in outputs]


def test_a_gpu_is_taken_by_itself(folder):
    llm = LLM(folder)
    assert llm.model.new_paged_cache(1, 16).device.type == "cuda"
    assert llm.model.logits(torch.zeros(1, 64, device="cuda", dtype=torch.bfloat16)).is_cuda


@pytest.mark.parametrize("settings", [{}, {"max_batched_tokens": 20}, {"block_size": 4}])
def test_tokens_are_those_of_the_cpu(folder, settings):
    cpu, cuda = both(folder, **settings)
    assert ids(cuda.generate(PROMPTS, GREEDY)) == ids(cpu.generate(PROMPTS, GREEDY))
    assert ids(cuda.generate(PROMPTS, GREEDY)) == ids(cpu.generate(PROMPTS, GREEDY))  # known now


def test_a_small_cache_only_takes_longer(folder):
    block = 2 * 2 * 2 * 4 * 16 * 4
    cpu, cuda = both(folder, block_size=4, kv_cache_memory=40 * block)
    assert ids(cuda.generate(PROMPTS, GREEDY)) == ids(cpu.generate(PROMPTS, GREEDY))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.9, "seed": 3, "top_p": 0.8},
        {"temperature": 1.1, "seed": 4, "top_k": 7, "min_p": 0.02},
        {"temperature": 0.8, "seed": 5, "n": 3},
        {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 0.4},
        {"temperature": 0.7, "seed": 6, "logit_bias": {9: 4.0}, "presence_penalty": 0.2},
        {"temperature": 0, "logprobs": 3, "prompt_logprobs": 2},
    ],
)
def test_ways_to_choose_a_token(folder, params):
    cpu, cuda = both(folder)
    params = SamplingParams(max_tokens=12, ignore_eos=True, **params)
    expected, found = (llm.generate(PROMPTS, params) for llm in (cpu, cuda))
    assert ids(found) == ids(expected)
    for a, b in zip(expected, found, strict=True):
        for x, y in zip(a.outputs[0].logprobs or [], b.outputs[0].logprobs or [], strict=True):
            assert y.logprob == pytest.approx(x.logprob, abs=1e-4)


def test_guesses_are_taken_back(folder):
    cpu, cuda = both(folder, speculate="ngram:k=4,n=2")
    prompts = [[5, 6, 7, 8] * 8, *PROMPTS]
    assert ids(cuda.generate(prompts, GREEDY)) == ids(cpu.generate(prompts, GREEDY))


def test_adapters_and_vectors(folder, tmp_path):
    adapter = save_small_adapter(tmp_path / "lora", 1)
    cpu, cuda = both(folder, loras={"one": adapter})
    params = [
        SamplingParams(temperature=0, max_tokens=9, ignore_eos=True, adapter=name)
        for name in ("one", None) * 6
    ]
    assert ids(cuda.generate(PROMPTS, params)) == ids(cpu.generate(PROMPTS, params))
    for text in ("one text", "another, longer text"):
        expected, found = (torch.tensor(llm.embed(text).embedding) for llm in (cpu, cuda))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


CONFIG = EvictionConfig(budget=12, chunk=8, stabilizers=4, local=5)


@pytest.mark.parametrize("policy", [H2OPolicy(CONFIG), SnapKVPolicy(CONFIG, window=4)])
def test_dropped_keys(policy):
    made = []
    for device in ("cpu", "cuda"):
        engine = Engine(
            prepare_for_inference(small_model().to(device)),
            byte_tokenizer(),
            block_size=4,
            cache_bytes=64 * 2 * 2 * 2 * 4 * 16 * 4,
            max_batched_tokens=64,
            kv_policy=policy,
        )
        found = [[] for _ in PROMPTS[3:6]]
        for prompt, tokens in zip(PROMPTS[3:6], found, strict=True):
            engine.submit(prompt, GREEDY, lambda piece, tokens=tokens: tokens.extend(piece.ids))
        engine.run()
        made.append(found)
    assert made[1] == made[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes", [{}, {"family": "qwen3"}, {"sliding_window": 8}, {"head_dim": 24}]
)
def test_recorded_steps_are_those_that_are_not(dtype, changes):
    model = prepare_for_inference(small_model(**changes).to("cuda", dtype))
    lengths = [1, 15, 16, 17, 40, 3, 90]
    width = -(-max(lengths) // 16)
    tables = [list(range(i * width, (i + 1) * width)) for i in range(len(lengths))]
    found = []
    for recorded in (False, True):
        cache = model.new_paged_cache(width * len(lengths), 16)
        if recorded:
            model.record(cache, len(lengths))
        prompts = [
            PagedPart([(3 * i + j) % 300 for j in range(n - 1)], 0, t, 0)
            for i, (n, t) in enumerate(zip(lengths, tables, strict=True))
            if n > 1
        ]
        model.states(prompts, cache)
        steps = []
        for count in range(1, len(lengths) + 1):  # each step alone: its keys are written again
            parts = [
                PagedPart([9 + i], n - 1, t[: -(-n // 16)])
                for i, (n, t) in enumerate(zip(lengths, tables, strict=True))
            ]
            steps.append(model.states(parts[:count], cache).clone())
        found.append(steps)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for expected, made in zip(*found, strict=True):
        torch.testing.assert_close(made, expected, atol=tolerance, rtol=tolerance)


def test_a_round_that_does_not_fit_is_refused(folder):
    with pytest.raises(OutOfMemoryError, match="max_batched_tokens"):
        Engine(
            prepare_for_inference(small_model(vocab_size=200_000).to("cuda")),
            byte_tokenizer(),
            max_batch=500_000,
        )
