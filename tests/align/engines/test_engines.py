"""The two engines of this process give the same tokens for the same seeds and weights."""

from dataclasses import replace

import pytest
import torch

from serving import running
from sharpen.align.engines import ClientEngine, PlainEngine, ServedEngine
from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.models import LoraConfig, add_lora
from sharpen.serve import SamplingParams
from small_models import byte_tokenizer, save_small_model, small_model

PROMPTS = [[5, 6, 7], [8], [5, 6, 7], [20, 21, 22, 23, 24, 25]]
PARAMS = [
    SamplingParams(max_tokens=9, seed=seed, temperature=temperature, logprobs=0)
    for seed, temperature in ((1, 1.0), (2, 1.0), (3, 0.0), (4, 0.7))
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = save_small_model(tmp_path_factory.mktemp("models") / "tiny")
    return ServedEngine(folder, dtype="float32", max_batch=3, max_context=64)


@pytest.mark.parametrize("seed", [0, 5])
def test_both_engines_generate_the_same_from_the_weights_they_were_given(served, seed):
    plain = PlainEngine(byte_tokenizer(), max_batch=2)
    model = small_model(seed=seed).train()
    found = []
    for engine in (served, plain):
        engine.update_weights(model, seed)
        assert engine.version == seed
        found.append(engine.generate(PROMPTS, PARAMS))
    assert model.training
    for one, other in zip(*found, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_the_end_of_a_text_is_among_its_tokens(served):
    model = small_model(seed=0)
    with_end = {"max_tokens": 50, "temperature": 1.0}
    params = [SamplingParams(seed=seed, **with_end) for seed in range(40)]
    for engine in (served, PlainEngine(byte_tokenizer())):
        engine.update_weights(model, 1)
        found = engine.generate([[5]] * 40, params)
        stopped = [one for one in found if one.finish_reason == "stop"]
        assert stopped and len(stopped) < 40
        ends = {2, byte_tokenizer().eos_id}
        assert all(one.token_ids[-1] in ends for one in stopped)
        assert all(not ends & set(one.token_ids[:-1]) for one in found)


def test_what_does_not_fit_is_refused_and_a_failed_round_is_tried_again(served, monkeypatch):
    served.update_weights(small_model(), 0)
    with pytest.raises(DataError, match="context holds 64"):
        served.generate([[5]], [SamplingParams(max_tokens=80)])
    expected = served.generate(PROMPTS, PARAMS)
    states, calls = served.llm.model.states, []

    def fail_once(*args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("lost")
        return states(*args)

    monkeypatch.setattr(served.llm.model, "states", fail_once)
    assert served.generate(PROMPTS, PARAMS) == expected

    def fail(*args):
        raise RuntimeError("gone")

    monkeypatch.setattr(served.llm.model, "states", fail)
    with pytest.raises(ExecutionError, match="gone"):
        served.generate(PROMPTS, PARAMS)
    monkeypatch.undo()
    assert served.generate(PROMPTS, PARAMS) == expected


def test_a_server_generates_with_the_adapters_that_are_handed_over(tmp_path):
    folder = save_small_model(tmp_path / "model")
    config = LoraConfig(rank=2)
    model = small_model()
    add_lora(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    plain = PlainEngine(byte_tokenizer())
    plain.update_weights(model, 0)
    params = [replace(one, logprobs=None) for one in PARAMS]
    with running(folder, allow_runtime_lora=True) as server:
        engine = ClientEngine(
            f"{server.url}/v1", byte_tokenizer(), lora=config, exchange=tmp_path / "exchange"
        )
        for version in (0, 1):
            engine.update_weights(model, version)
            found = engine.generate(PROMPTS, params)
            expected = plain.generate(PROMPTS, params)
            assert [one.text for one in found] == [one.text for one in expected]
            assert [one.finish_reason for one in found] == [o.finish_reason for o in expected]
        assert [one.name for one in (tmp_path / "exchange").iterdir()] == ["policy-1"]
        engine.close()
    with pytest.raises(ConfigError, match="tune=lora"):
        ClientEngine("http://127.0.0.1:9/v1", byte_tokenizer(), lora=None, exchange=tmp_path)
