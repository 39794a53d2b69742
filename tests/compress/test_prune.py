"""Masks against brute force, Wanda against its definition, and variants of the stage."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.compress import PruneConfig, prune_mask, prune_model, zero_share
from sharpen.compress.config import CompressConfig, VariantConfig
from sharpen.compress.stages import COMPRESS
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, DataError
from sharpen.core.stage import Artifact, StageContext
from sharpen.data.shards import TokenDataset
from sharpen.eval import dataset_loss
from sharpen.models import load_model
from small_models import save_small_dataset, save_small_model, small_model


@pytest.fixture
def dataset(tmp_path):
    save_small_dataset(tmp_path / "data")
    return TokenDataset(tmp_path / "data", "train")


def linears(model):
    return {
        name: module
        for name, module in model.model.layers.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 9),
    sparsity=st.floats(0.05, 0.95),
    by_row=st.booleans(),
    seed=st.integers(0, 50),
)
def test_the_lowest_scores_go(rows, columns, sparsity, by_row, seed):
    score = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = prune_mask(score, sparsity=sparsity, by_row=by_row)
    parts = zip(score, mask, strict=True) if by_row else [(score.flatten(), mask.flatten())]
    for values, gone in parts:
        assert int(gone.sum()) == int(len(values) * sparsity)
        if gone.any():
            assert values[gone].max() <= values[~gone].min()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4)])
def test_n_of_m_neighbours_stay(n, m):
    score = torch.rand(6, 24, generator=torch.Generator().manual_seed(0))
    mask = prune_mask(score, kept=(n, m), by_row=True)
    for values, gone in zip(score.view(-1, m), mask.view(-1, m), strict=True):
        assert set(torch.topk(values, n).indices.tolist()) == set((~gone).nonzero()[:, 0].tolist())
    with pytest.raises(ConfigError, match="24 inputs: 5 must divide"):
        prune_mask(score, kept=(2, 5), by_row=True)


def test_ties_go_from_the_left():
    mask = prune_mask(torch.ones(2, 4), sparsity=0.5, by_row=True)
    assert mask.tolist() == [[True, True, False, False]] * 2


def test_magnitude_prunes_each_matrix_by_its_own_threshold():
    model = small_model()
    before = {n: m.weight.detach().clone() for n, m in linears(model).items()}
    whole = model.model.embed_tokens.weight.detach().clone()
    prune_model(model, PruneConfig(method="magnitude", sparsity=0.6))
    for name, layer in linears(model).items():
        limit = before[name].abs().flatten().sort().values[int(before[name].numel() * 0.6)]
        expected = before[name] * (before[name].abs() >= limit)
        assert torch.equal(layer.weight, expected)
    assert torch.equal(model.model.embed_tokens.weight, whole)
    assert zero_share(model) == pytest.approx(0.6, abs=1e-3)


@torch.no_grad()
def test_wanda_is_its_definition_block_by_block(dataset):
    """Against a plain rendering: whole-model passes with hooks, one block at a time."""
    model, expected = small_model(), small_model()
    steps = []
    prune_model(model, PruneConfig(sparsity=0.5), dataset, on_progress=steps.append)
    assert steps == [1, 1]
    for number in range(2):
        inputs = {}
        hooks = [
            module.register_forward_pre_hook(
                lambda m, args, name=name, inputs=inputs: inputs.setdefault(name, []).append(
                    args[0]
                )
            )
            for name, module in linears(expected).items()
            if name.startswith(f"{number}.")
        ]
        for index in range(len(dataset)):
            row = dataset[index]
            ids, positions, documents = (
                torch.from_numpy(v.copy())[None]
                for v in (row.input_ids, row.position_ids, row.document_ids)
            )
            used = int((documents >= 0).sum())
            expected.hidden(
                ids[:, :used],
                position_ids=positions[:, :used],
                document_ids=documents[:, :used],
            )
        for hook in hooks:
            hook.remove()
        for name, module in linears(expected).items():
            if name in inputs:
                x = torch.cat([t.flatten(0, 1) for t in inputs[name]])
                score = module.weight.abs() * x.norm(dim=0)
                cut = score.sort(dim=1).values[:, score.shape[1] // 2]
                module.weight.mul_(score >= cut[:, None])
    for name, module in linears(expected).items():
        assert torch.equal(module.weight, linears(model)[name].weight), name


@torch.no_grad()
def test_wanda_keeps_what_large_inputs_meet(dataset):
    """Features scaled up by the norm and down in the weights: magnitudes mislead, scores do not."""
    model = small_model()
    scale = torch.ones(64)
    scale[::2] = 16
    for block in model.model.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            norm.weight.mul_(scale)
        for layer in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            layer.weight.div_(scale)
        for layer in (block.mlp.gate_proj, block.mlp.up_proj):
            layer.weight.div_(scale)
    ids = torch.arange(5, 60)[None]
    wanted = model(ids)
    errors = []
    for method in ("wanda", "magnitude"):
        pruned = copy.deepcopy(model)
        prune_model(pruned, PruneConfig(method=method, sparsity=0.3), dataset)
        errors.append(float((pruned(ids) - wanted).norm()))
    assert errors[0] < 0.8 * errors[1]


def test_what_cannot_be_calibrated_is_refused(dataset, monkeypatch):
    with pytest.raises(ConfigError, match="needs a data set to calibrate"):
        prune_model(small_model(), PruneConfig())
    monkeypatch.setattr(TokenDataset, "__len__", lambda self: 0)
    with pytest.raises(DataError, match="is empty"):
        prune_model(small_model(), PruneConfig(), dataset)


def test_only_so_many_rows_are_looked_at(dataset, monkeypatch):
    seen = []
    read = TokenDataset.__getitem__
    monkeypatch.setattr(
        TokenDataset, "__getitem__", lambda self, i: seen.append(i) or read(self, i)
    )
    prune_model(small_model(), PruneConfig(calibration=2), dataset)
    assert len(dataset) > 2
    assert seen == [0, len(dataset) // 2]


VARIANTS = [
    {"prune": {"sparsity": 0.5}},
    {"prune": {"method": "magnitude", "pattern": "2:4"}, "bits": 8},
]


def test_variants_are_dense_folders_with_zeros_and_their_perplexity(tmp_path):
    save_small_model(tmp_path / "model")
    save_small_dataset(tmp_path / "data")
    output = tmp_path / "out"
    output.mkdir()
    context = StageContext(
        stage="compress",
        seed=0,
        model=str(tmp_path / "model"),
        inputs={"dataset": Artifact(kind="dataset", path=tmp_path / "data", stage="d", key="d")},
        output=output,
        work=tmp_path,
    )
    config = from_dict(CompressConfig, {"variants": VARIANTS, "limit": 4, "new_tokens": 0})
    results = COMPRESS.run(config, context).results
    assert set(results) == {"baseline", "wanda50", "magnitude2of4-int8"}
    data = TokenDataset(tmp_path / "data", "valid")
    pruned = load_model(output / "wanda50", dtype=torch.bfloat16)
    assert results["wanda50"]["zeros"] == zero_share(pruned) == 0.5
    assert results["magnitude2of4-int8"]["zeros"] == 0.5
    assert "quantization_config" not in json.loads((output / "wanda50/config.json").read_text())
    assert (output / "wanda50" / "tokenizer.json").exists()
    wanted = math.exp(dataset_loss(pruned, data, limit=4)[0])
    assert results["wanda50"]["perplexity"] == pytest.approx(wanted)
    quantized = load_model(output / "magnitude2of4-int8")
    layer = quantized.model.layers[0].mlp.up_proj
    weight = layer(torch.eye(64)).T.detach()
    assert int((weight.reshape(-1, 4) != 0).sum(1).max()) == 2
    (section,) = COMPRESS.report(results)
    assert [row[-1] for row in section.blocks[0].rows] == [None, "50.0%", "50.0%"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"calibration": 0}, "calibration=0"),
        ({"pattern": "4:2"}, "must be 'n:m'"),
        ({"pattern": "2/4"}, "must be 'n:m'"),
        ({"pattern": "2:4", "sparsity": 0.7}, "contradicts pattern='2:4'"),
        ({"methods": "wanda"}, "Did you mean 'method'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(PruneConfig, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a variant changes nothing"),
        ({"prune": {}, "group": 32}, "belong to quantization"),
        ({"prune": {}, "head": "int8"}, "belong to quantization"),
    ],
)
def test_variants_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(VariantConfig, options)
