"""MixLLM: which rows are chosen, scaling that changes nothing, and what the solvers reach."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress.awq import input_groups, scale_inputs
from sharpen.compress.calibration import calibration_dataset, samples
from sharpen.compress.config import MixLLMConfig, VariantConfig
from sharpen.compress.gptq import Hessian
from sharpen.compress.mixed_files import load_mixed, save_mixed
from sharpen.compress.mixllm import choose_rows, quantize_block
from sharpen.compress.prune import first_inputs
from sharpen.compress.rows import row_bytes
from sharpen.compress.salience import block_linears, row_salience
from sharpen.core.assets import asset_path
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError
from sharpen.eval import perplexity
from sharpen.models import load_model, load_tokenizer
from small_models import save_small_dataset, small_model


@st.composite
def layers(draw):
    """Scores and inputs of up to three layers; scores may repeat."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    scores = {
        str(i): torch.randint(0, 9, (size,), generator=generator).double()
        for i, size in enumerate(sizes)
    }
    columns = {name: draw(st.sampled_from([64, 128, 576, 1536])) for name in scores}
    return scores, columns


@given(case=layers(), share=st.floats(0, 1))
def test_by_rows_the_largest_scores_win_whatever_their_layer(case, share):
    scores, columns = case
    chosen = choose_rows(scores, columns, share)
    assert {name: rows.shape for name, rows in chosen.items()} == {
        name: score.shape for name, score in scores.items()
    }
    flat, every = torch.cat(list(chosen.values())), torch.cat(list(scores.values()))
    assert int(flat.sum()) == int(share * every.numel() + 0.5)
    if flat.any() and not flat.all():
        assert float(every[flat].min()) >= float(every[~flat].max())


@given(case=layers(), share=st.floats(0, 1))
def test_by_bytes_the_budget_holds_and_the_worth_is_near_the_best(case, share):
    scores, columns = case
    extra = torch.cat(
        [
            torch.full(s.shape, row_bytes(columns[n])[1] - row_bytes(columns[n])[0])
            for n, s in scores.items()
        ]
    )
    budget = int(share * int(extra.sum()))
    flat = torch.cat(list(choose_rows(scores, columns, share, unit="bytes").values()))
    every = torch.cat(list(scores.values()))
    spent = int(extra[flat].sum())
    assert spent <= budget
    assert not bool((extra[~flat] <= budget - spent).any())  # nothing more fits
    best = torch.zeros(budget + 1, dtype=torch.float64)  # the knapsack, by dynamic programming
    for worth, weight in zip(every.tolist(), extra.tolist(), strict=True):
        if weight <= budget:
            taken = best[: budget + 1 - weight] + worth
            best[weight:] = torch.maximum(best[weight:], taken)
    assert float(every[flat].sum()) >= float(best[-1]) - float(every.max())


def context_of(model, tmp_path, rows=6):
    dataset = save_small_dataset(tmp_path / "data", rows=20)
    with torch.no_grad():
        return first_inputs(model, samples(dataset, rows, model))


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_kv_heads": 4, "family": "qwen2"}, {"block": "parallel"}],
    ids=["grouped", "own values, biases", "parallel"],
)
def test_scaled_inputs_change_no_output(tmp_path, changes):
    model = small_model(**changes)
    states = context_of(model, tmp_path)
    block = copy.deepcopy(model.model.layers[0])
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.endswith("layernorm.weight"):
                parameter.copy_(torch.linspace(0.05, 3, parameter.numel()))
        wanted = [block(hidden, context) for hidden, context in states]
        groups = input_groups(block)
        hessians = {}
        for names in groups:
            layer = block.get_submodule(names[0])
            hessian = Hessian(layer.in_features)
            hook = layer.register_forward_pre_hook(lambda _, x, h=hessian: h.add(x[0]))
            for hidden, context in states:
                block(hidden, context)
            hook.remove()
            hessians |= dict.fromkeys(names, hessian)
        eight = {n: torch.zeros(block.get_submodule(n).out_features).bool() for n in hessians}
        before = {name: p.clone() for name, p in block.named_parameters()}
        scale_inputs(block, hessians, eight)
        assert not torch.equal(block.input_layernorm.weight, before["input_layernorm.weight"])
        own_values = "self_attn.v_proj.weight"
        scaled = not torch.equal(block.get_parameter(own_values), before[own_values])
        assert scaled
        for (hidden, context), output in zip(states, wanted, strict=True):
            assert torch.allclose(block(hidden, context), output, rtol=1e-4, atol=1e-5)


def test_groups_of_layers_that_share_their_input():
    serial = input_groups(small_model().model.layers[0])
    assert [len(names) for names in serial] == [3, 1, 2, 1]
    parallel = input_groups(small_model(block="parallel").model.layers[0])
    assert [len(names) for names in parallel] == [5, 1, 1]
    names = {f"model.layers.0.{name}" for group in serial for name in group}
    assert names == {n for n in block_linears(small_model()) if n.startswith("model.layers.0.")}


@pytest.mark.parametrize("solver", ["rtn", "gptq", "awq"])
def test_a_block_of_eight_bits_computes_nearly_what_it_did(tmp_path, solver):
    from sharpen.compress.mixed_files import _take

    model = small_model()
    states = context_of(model, tmp_path)
    block = model.model.layers[0]
    eight = {
        name.removeprefix("model.layers.0."): torch.ones(layer.out_features, dtype=torch.bool)
        for name, layer in block_linears(model).items()
        if name.startswith("model.layers.0.")
    }
    config = MixLLMConfig(bits=8, solver=solver)
    with torch.no_grad():
        wanted = [block(hidden, context) for hidden, context in states]
        stored = quantize_block(block, eight, config, states, where="block")
        _take(block, stored)
        for (hidden, context), output in zip(states, wanted, strict=True):
            error = (block(hidden, context) - output).norm() / output.norm()
            assert float(error) < 0.03
    assert stored["mlp.up_proj.weight_int4"].shape[0] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixllm": {"bits": 3.9}}, r"bits=3\.9 must be from 4"),
        ({"mixllm": {"bits": 8.1}}, r"bits=8\.1 must be from 4"),
        ({"mixllm": {"calibration": 0}}, "calibration=0"),
        ({"mixllm": {"solver": "obq"}}, "must be"),
        ({"mixllm": {"unit": "bits"}}, "must be"),
        ({"mixllm": {}, "bits": 4}, "both say how to quantize"),
        ({"mixllm": {}, "group": 64}, "belong to quantization"),
        ({}, "'bits', 'mixllm' or 'prune'"),
    ],
)
def test_configs_out_of_range_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(VariantConfig, fields)


def test_configs_say_what_they_need_and_are_called():
    assert MixLLMConfig().share == pytest.approx(0.1)
    assert MixLLMConfig(bits=4).needs_texts
    assert not MixLLMConfig(bits=8, solver="rtn").needs_texts
    assert MixLLMConfig(bits=5, solver="rtn").needs_texts
    assert from_dict(VariantConfig, {"mixllm": {"bits": 4.8}}).label == "mixllm"
    both = {"mixllm": {}, "prune": {"method": "magnitude"}}
    assert from_dict(VariantConfig, both).label == "magnitude50-mixllm"


@pytest.mark.slow
def test_on_a_trained_model_the_chosen_rows_save_most_of_what_four_bits_cost(tmp_path):
    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    (tmp_path / "rows").mkdir()
    dataset = calibration_dataset(
        "python-stdlib", tokenizer, tmp_path / "rows", rows=16, tokens=256
    )
    scores = row_salience(model, samples(dataset, 16, model))
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.rand(s.shape, generator=generator) for n, s in scores.items()}
    text = (asset_path("python-stdlib") / "argparse.py").read_text()
    ids = tokenizer.encode(text)[:2048]
    base = perplexity(model, ids)

    def cost(chosen, **fields):
        config = MixLLMConfig(calibration=16, **fields)
        save_mixed(model, tmp_path / "q", config, dataset, scores=chosen, dtype=torch.float32)
        return perplexity(load_mixed(tmp_path / "q"), ids) / base - 1

    nearest, at_random = cost(None, bits=4, solver="rtn"), cost(drawn, solver="rtn")
    by_salience, full = cost(scores, solver="rtn"), cost(scores)
    assert by_salience < at_random
    assert by_salience < 0.7 * nearest
    assert full < 0.5 * nearest
