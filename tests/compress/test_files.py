"""Quantized folders: round trips, bytes, damage, and the peer that loads them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sharpen.compress import Grid, dequantize, load_quantized, quantize, save_quantized
from sharpen.compress.linear import QuantizedEmbedding, QuantizedLinear, weight_bytes
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.core.files import sha256_file
from sharpen.models import generate, load_model, load_tokenizer
from small_models import byte_tokenizer, save_small_model, small_model


def rounded_twin(grid, head="keep", **changes):
    """The full-precision model with every weight put where the grid puts it."""
    model = small_model(**changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("model.layers.") and parameter.ndim == 2:
                parameter.copy_(dequantize(quantize(parameter, grid)))
            elif head == "int8" and parameter.ndim == 2:
                parameter.copy_(dequantize(quantize(parameter, Grid(bits=8))))
            else:
                parameter.copy_(parameter.bfloat16())
    return model


IDS = torch.tensor([[5, 9, 200, 33, 7, 120, 64, 3]])
GRIDS = [
    Grid(bits=4),
    Grid(bits=8),
    Grid(bits=4, group=64, symmetric=False),
    Grid(bits=8, group=32, symmetric=False),
    Grid(bits=4, group=-1, clip="mse"),
]


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("head", ["keep", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_computes_what_its_rounded_weights_compute(tmp_path, grid, head, tied):
    changes = {"tie_word_embeddings": tied, "family": "qwen2"}  # with biases
    model = small_model(**changes)
    num_bytes = save_quantized(model, tmp_path / "q", grid, head=head, tokenizer=byte_tokenizer())
    assert num_bytes == sum(f.stat().st_size for f in (tmp_path / "q").iterdir())
    wanted = rounded_twin(grid, head, **changes)(IDS).detach()
    exact = load_quantized(tmp_path / "q", kernel="reference")(IDS).detach()
    assert torch.allclose(exact, wanted, atol=1e-4)
    fast = load_model(tmp_path / "q")(IDS).detach()
    # bfloat16 products: 2 layers of relative errors around 2^-9 each
    assert float((fast - wanted).norm() / wanted.norm()) < 0.03


def test_the_loaded_model_decodes_and_keeps_no_float_copy(tmp_path):
    model = small_model()
    save_quantized(model, tmp_path / "q", Grid(bits=4), head="int8", tokenizer=byte_tokenizer())
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_model(tmp_path / "q", dtype=dtype)
        linears = [m for m in loaded.modules() if isinstance(m, QuantizedLinear)]
        assert len(linears) == 2 * 7 + 1
        assert isinstance(loaded.model.embed_tokens, QuantizedEmbedding)
        assert weight_bytes(loaded) < 0.3 * weight_bytes(model)
        found = generate(loaded, [[1, 2, 3], [4, 5]], max_new_tokens=5)
        assert [len(g.ids) for g in found] == [5, 5]
    tokenizer = load_tokenizer(tmp_path / "q")
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_quantized(small_model(), tmp_path / name, Grid(bits=4), tokenizer=byte_tokenizer())
    for file in (tmp_path / "a").iterdir():
        assert sha256_file(file) == sha256_file(tmp_path / "b" / file.name), file.name


def test_stored_bytes_are_those_of_the_formula(tmp_path):
    model = small_model()
    linear = sum(p.numel() for n, p in model.named_parameters() if "layers" in n and p.ndim == 2)
    rest = sum(p.numel() for p in model.parameters()) - linear
    for grid, per_weight in (
        (Grid(bits=4, group=32), 0.5 + 2 / 32),
        (Grid(bits=8, group=64), 1 + 2 / 64),
    ):
        save_quantized(model, tmp_path / "q", grid)
        tensors = load_file(tmp_path / "q" / "model.safetensors")
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        shapes = 14 * 2 * 8
        assert total == linear * per_weight + 2 * rest + shapes


def test_what_cannot_be_quantized_leaves_nothing_behind(tmp_path):
    model = small_model()
    with pytest.raises(ConfigError, match=r"64 columns of model\.layers\.0\.self_attn\.q_proj"):
        save_quantized(model, tmp_path / "q", Grid(bits=4, group=128))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
        save_quantized(model, tmp_path / "q", Grid(bits=4))
    assert list(tmp_path.iterdir()) == []
    save_quantized(small_model(), tmp_path / "q", Grid(bits=4))
    with pytest.raises(ConfigError, match="quantized already"):
        save_quantized(load_model(tmp_path / "q"), tmp_path / "r", Grid(bits=4))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "q"
    save_quantized(small_model(), folder, Grid(bits=4))
    return folder


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q.update(quant_method="gptq"), "'gptq' is not supported; supported: compressed"),
        (lambda q: q.update(format="int-quantized"), "'int-quantized' of compressed-tensors"),
        (lambda q: q.update(kv_cache_scheme={"num_bits": 8}), "key/value cache"),
        (lambda q: q.pop("config_groups"), "damaged: KeyError"),
        (lambda q: q["config_groups"]["group_0"].pop("targets"), "damaged"),
        (lambda q: q["config_groups"]["group_0"].update(targets=["Embedding"]), "no group"),
        (
            lambda q: q["config_groups"]["group_0"].update(input_activations={"num_bits": 8}),
            "quantized activations",
        ),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(num_bits=2), "num_bits=2"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(num_bits=8), "weight_packed"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(type="float"), "type='float'"),
        (lambda q: q["config_groups"]["group_0"]["weights"].update(actorder="group"), "actorder"),
    ],
)
def test_configs_that_are_not_ours_are_refused(saved, tmp_path, change, message):
    folder = shutil.copytree(saved, tmp_path / "q")
    edit_config(folder, change)
    with pytest.raises(FileFormatError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "targets",
    [
        ["re:.*layers.*"],
        [
            f"model.layers.{i}.{n}"
            for i in (0, 1)
            for n in (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            )
        ],
    ],
)
def test_layers_may_be_targeted_by_name_or_pattern(saved, tmp_path, targets):
    folder = shutil.copytree(saved, tmp_path / "q")
    edit_config(folder, lambda q: q["config_groups"]["group_0"].update(targets=targets))
    assert torch.equal(load_model(folder)(IDS), load_model(saved)(IDS))


LAYER = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{LAYER}.weight_scale"), "lacks weight_scale"),
        (lambda t: t.pop("model.norm.weight"), "lacks 'model.norm.weight'"),
        (lambda t: t.update({"extra": torch.ones(1)}), "unexpected tensor 'extra'"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"shape \[3\]"),
        (lambda t: t.update({"model.norm.weight": torch.full((64,), torch.nan)}), "holds NaN"),
        (lambda t: t[f"{LAYER}.weight_scale"].fill_(float("inf")), "finite numbers"),
        (lambda t: t[f"{LAYER}.weight_shape"].fill_(3), r"weight_shape is \[3, 3\]"),
    ],
)
def test_tampered_tensors_are_refused(saved, tmp_path, change, message):
    folder = shutil.copytree(saved, tmp_path / "q")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FileFormatError, match=message):
        load_model(folder)


def test_a_packed_embedding_must_be_plain_rows(tmp_path):
    folder = tmp_path / "q"
    save_quantized(small_model(), folder, Grid(bits=4), head="int8")
    edit_config(folder, lambda q: q["config_groups"]["group_1"]["weights"].update(num_bits=4))
    with pytest.raises(FileFormatError, match="embed_tokens"):
        load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    wide = quantize(small_model().model.embed_tokens.weight, Grid(bits=8, group=32))
    tensors["model.embed_tokens.weight_scale"] = wide.scale
    save_file(tensors, folder / "model.safetensors")
    edit_config(folder, lambda q: q["config_groups"]["group_1"]["weights"].update(num_bits=8))
    with pytest.raises(FileFormatError, match="one scale a row"):
        load_model(folder)


def test_truncated_and_missing_files_are_named(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "q")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(FileFormatError, match="truncated"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors"):
        load_model(folder)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("grid", [Grid(bits=4), Grid(bits=8), Grid(bits=8, group=32)], ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_our_folder_with_equal_logits(tmp_path, grid):
    from transformers import AutoModelForCausalLM

    source = save_small_model(tmp_path / "full")
    save_quantized(load_model(source), tmp_path / "q", grid, dtype=torch.float32)
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "q", dtype=torch.float32)
    with torch.no_grad():
        wanted = peer(IDS).logits
        found = load_quantized(tmp_path / "q", kernel="reference")(IDS)
    # 2^-9 relative where the peer multiplies integers and scales in the scales' bfloat16
    assert float((found - wanted).norm() / wanted.norm()) < 0.004
    assert torch.equal(found.argmax(-1), wanted.argmax(-1))
