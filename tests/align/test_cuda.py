"""Alignment on a CUDA device: the losses and completions of the CPU, bfloat16, resuming."""

import json

import pytest
import torch

from align_stage import REWARD, ROWS, Stage
from sharpen.align.engines import PlainEngine, ServedEngine
from sharpen.align.logprobs import token_logprobs
from sharpen.align.methods import METHODS
from sharpen.models import load_model
from sharpen.serve.sampling import SamplingParams
from small_models import byte_tokenizer, save_small_model, small_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    prompts = [{"prompt": f"what comes after {row['prompt']}"} for row in ROWS["prompt"]]
    for kind, rows in {**ROWS, "prompt": prompts}.items():  # long enough to be shared
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    return folder


def config(method, files, **changes):
    found = METHODS[method]
    own = {"method": method, "data": f"{files}/{found.kind}.jsonl"}
    own |= {"steps": 3, "batch": 4, "lr": 1e-3}
    if found.online:
        own["reward"] = {"uses": f"{files}/reward.py:even", "workers": 0}
        own["sampling"] = {"max_tokens": 8}
    return {**own, **changes}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_as_on_the_cpu(method, model, files, tmp_path):
    cpu, cuda = (
        Stage(model, tmp_path / device, **config(method, files, device=device))
        for device in ("cpu", "cuda")
    )
    assert cuda.result.results["steps"] == cpu.result.results["steps"]
    assert cuda.metrics["loss"] == pytest.approx(cpu.metrics["loss"], rel=1e-3, abs=1e-5)
    assert cuda.metrics["grad_norm"] == pytest.approx(cpu.metrics["grad_norm"], rel=1e-2, abs=1e-6)
    if METHODS[method].online:
        assert cuda.metrics["reward"] == pytest.approx(cpu.metrics["reward"], rel=1e-6)
        assert max(cuda.metrics["engine_gap"]) < 1e-3


@pytest.mark.parametrize("own", [{}, {"tune": "lora"}, {"tune": "qlora"}, {"engine": "model"}])
def test_types_adapters_and_engines(own, model, files, tmp_path):
    done = Stage(model, tmp_path, **config("grpo", files, dtype="bfloat16", **own))
    assert done.result.results["skipped_steps"] == 0
    assert max(done.metrics["engine_gap"]) < 0.2  # rounding of 8 bits, in other kernels
    assert done.result.measured["peak_bytes"] < 1 << 30  # of the device


def test_a_run_that_was_killed_ends_with_the_same_weights(model, files, tmp_path):
    checkpoint = {"every": 1, "async_": False}
    given = config("grpo", files, steps=5, checkpoint=checkpoint, deterministic=True)
    whole = Stage(model, tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        Stage(model, tmp_path / "killed", stop_at=4, **given)
    again = Stage(model, tmp_path / "killed", **given)
    for name, data in whole.weights.items():
        assert again.weights[name] == data


def test_new_weights_reach_recorded_steps(model):
    tokenizer = byte_tokenizer()
    prompts = [tokenizer.encode(text) for text in ("ab", "hello", "cdefgh")]
    params = [SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)] * 3
    engine = ServedEngine(model, dtype=torch.float32, device="cuda", max_context=64)
    plain = PlainEngine(tokenizer)
    for version in range(2):
        policy = small_model(version).to("cuda")
        engine.update_weights(policy, version)
        plain.update_weights(policy, version)
        found = [one.token_ids for one in engine.generate(prompts, params)]
        assert found == [one.token_ids for one in plain.generate(prompts, params)]


def test_log_probabilities_of_many_tiles():
    torch.manual_seed(0)
    hidden = torch.randn(300, 64, dtype=torch.float64)
    weight = torch.randn(500, 64, dtype=torch.float64) / 8
    tokens = torch.randint(0, 500, (300,))
    exact_in = [x.clone().requires_grad_() for x in (hidden, weight)]
    exact = torch.log_softmax(exact_in[0] @ exact_in[1].T, -1).gather(1, tokens[:, None])[:, 0]
    exact.sum().backward()
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        own = [x.to("cuda", dtype).requires_grad_() for x in (hidden, weight)]
        found = token_logprobs(*own, tokens.cuda(), tile=64).logp
        found.sum().backward()
        assert relative(found, exact) < limit
        for a, b in zip(own, exact_in, strict=True):
            assert relative(a.grad, b.grad) < limit


def test_a_shared_prompt_changes_nothing_in_bfloat16(model):
    policy = load_model(model, dtype=torch.bfloat16, device="cuda")
    exact = load_model(model, dtype=torch.float64)
    prompt = list(range(20, 60))
    rows = torch.tensor([[*prompt, *(range(60 + i, 70 + i))] for i in range(6)])
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask[:, len(prompt) :] = True
    expected = exact.hidden(rows)
    spans = [40, *[10] * 6]
    ids = torch.tensor([*prompt, *(x for row in rows.tolist() for x in row[40:])])
    numbers = torch.arange(7).repeat_interleave(torch.tensor(spans))
    places = torch.cat([torch.arange(40), torch.arange(40, 50).repeat(6)])
    found = policy.hidden(
        ids[None].cuda(),
        position_ids=places[None].cuda(),
        document_ids=numbers[None].cuda(),
        follows=[None, *[0] * 6],
    )
    assert relative(found[0, 40:], expected[:, 40:].reshape(60, -1)) < 2e-2


def relative(found, exact):
    found, exact = found.detach().double().cpu(), exact.detach().double()
    return float((found - exact).norm() / exact.norm())
