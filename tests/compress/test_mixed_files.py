"""Folders of mixed rows: round trips, interruptions, bytes, and damage."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sharpen.compress import mixed_files
from sharpen.compress.config import MixLLMConfig
from sharpen.compress.grid import Grid
from sharpen.compress.groupwise import dequantize, quantize
from sharpen.compress.linear import QuantizedEmbedding, weight_bytes
from sharpen.compress.mixed import MixedEmbedding, MixedLinear, MixedWeight
from sharpen.compress.mixed_files import load_mixed, save_mixed
from sharpen.compress.packing import pack_weight
from sharpen.compress.rows import quantize_rows, row_bytes
from sharpen.compress.salience import block_linears
from sharpen.core.errors import BusyError, ConfigError, DataError, FileFormatError
from sharpen.core.files import FileLock, sha256_file
from sharpen.models import generate, load_model, load_tokenizer, prepare_for_inference
from sharpen.native.info import compiler
from small_models import byte_tokenizer, save_small_dataset, small_model

IDS = torch.tensor([[5, 9, 200, 33, 7, 120, 64, 3]])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save_small_dataset(tmp_path_factory.mktemp("data") / "d", rows=20)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("saved") / "q"
    save_mixed(small_model(), folder, MixLLMConfig(bits=5), data, tokenizer=byte_tokenizer())
    return folder


def files_of(folder):
    return {file.name: sha256_file(file) for file in folder.iterdir()}


@pytest.mark.parametrize("solver", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False, "family": "qwen2", "num_kv_heads": 4}], ids=str
)
def test_a_saved_model_computes_nearly_what_it_did(tmp_path, data, solver, changes):
    model = small_model(**changes)
    before = {name: p.clone() for name, p in model.named_parameters()}
    wanted = model(IDS).detach()
    told = []
    config = MixLLMConfig(bits=6, solver=solver, calibration=4)
    found = save_mixed(
        model, tmp_path / "q", config, data, dtype=torch.float32, on_progress=told.append
    )
    assert found.rows_int8 == found.rows // 2
    assert sum(told) == pytest.approx(100)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
    assert [p.name for p in tmp_path.iterdir()] == ["q"]
    logits = load_model(tmp_path / "q")(IDS).detach()
    assert float((logits - wanted).norm() / wanted.norm()) < 0.25


def test_more_bits_are_nearer_and_every_kind_of_layer_is_told(tmp_path, data):
    wanted = small_model()(IDS).detach()
    errors = []
    for bits in (4.0, 6.0, 8.0):
        found = save_mixed(small_model(), tmp_path / "q", MixLLMConfig(bits=bits), data)
        logits = load_mixed(tmp_path / "q")(IDS).detach()
        errors.append(float((logits - wanted).norm() / wanted.norm()))
        share = (bits - 4) / 4
        assert found.rows_int8 == pytest.approx(share * found.rows, abs=0.5)
        assert set(found.share_int8) == {n.rpartition(".")[2] for n in block_linears(small_model())}
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.06


def test_the_loaded_model_decodes_in_any_type_and_keeps_its_weights_packed(tmp_path, data):
    model = small_model()
    save_mixed(model, tmp_path / "q", MixLLMConfig(), data, tokenizer=byte_tokenizer())
    file = (tmp_path / "q" / "model.safetensors").stat().st_size
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_model(tmp_path / "q", dtype=dtype)
        assert sum(isinstance(m, MixedLinear) for m in loaded.modules()) == 2 * 7 + 1
        assert isinstance(loaded.model.embed_tokens, MixedEmbedding)
        assert weight_bytes(loaded) < file
        found = generate(loaded, [[1, 2, 3], [4, 5]], max_new_tokens=5)
        assert [len(g.ids) for g in found] == [5, 5]
    tokenizer = load_tokenizer(tmp_path / "q")
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"vocab_size": 301, "hidden_size": 72, "head_dim": 18}])
def test_an_embedding_reads_the_weights_that_its_head_multiplies(
    tmp_path, dtype, changes, monkeypatch
):
    monkeypatch.setattr("sharpen.compress.mixed._TILE_BYTES", 100 * 72)  # rows in pieces of 100
    save_mixed(small_model(**changes), tmp_path / "q", MixLLMConfig(bits=8, solver="rtn"))
    loaded = load_model(tmp_path / "q", dtype=dtype)
    embedding = loaded.model.embed_tokens
    assert isinstance(embedding, MixedEmbedding)
    ids = torch.arange(loaded.spec.vocab_size).view(1, -1)
    before = embedding(ids)
    prepare_for_inference(loaded)
    assert embedding.weight_int8.numel() == 0
    assert torch.equal(embedding(ids), before)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_8_bit_head_is_stored_once_and_looked_up_as_it_multiplies(tmp_path, tied, dtype):
    model = small_model(tie_word_embeddings=tied)
    config = MixLLMConfig(bits=8, solver="rtn")
    told = save_mixed(model, tmp_path / "q", config)
    tensors = load_file(tmp_path / "q" / "model.safetensors")
    name = "model.embed_tokens" if tied else "lm_head"
    assert {n for n in tensors if n.startswith((name, "lm_head"))} == {
        f"{name}.{part}" for part in MixedWeight.names()
    }
    weight = model.lm_head.weight.detach()
    codes = quantize_rows(weight, torch.ones(len(weight), dtype=torch.bool)).dequantized()
    loaded = load_model(tmp_path / "q", dtype=dtype)
    head, embedding = loaded.lm_head, loaded.model.embed_tokens
    assert torch.equal(head.weight.dequantized(), codes)
    x = torch.randn(3, codes.shape[1], generator=torch.Generator().manual_seed(0))
    rounded = 0.5 * float(x.abs().max()) / 127 / 254 * float(codes.abs().sum(-1).max())  # 16 bits
    torch.testing.assert_close(head(x), x @ codes.T, rtol=0, atol=rounded + 1e-5)
    looked_up = codes if tied else model.model.embed_tokens.weight.detach().bfloat16()
    assert torch.equal(embedding(IDS), looked_up.to(dtype)[IDS])
    if tied:
        assert embedding.weight_int8.data_ptr() == head.weight_int8.data_ptr()
        assert embedding.to(torch.float16).scale_int8.dtype == torch.bfloat16
    bits = 8 + 16 / weight.shape[1] + 32 / weight.shape[1]  # one group of codes, and a place
    assert told.stored_bits["head"] == pytest.approx(bits)
    assert told.stored_bits["all"] == pytest.approx(
        8 * sum(t.nbytes for t in tensors.values()) / model.spec.num_parameters
    )


def test_a_head_of_16_bits_stays_as_it_is(tmp_path):
    model = small_model()
    told = save_mixed(model, tmp_path / "q", MixLLMConfig(bits=4, solver="rtn", head=16))
    assert told.stored_bits["head"] == 16
    loaded = load_model(tmp_path / "q", dtype=torch.bfloat16)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.bfloat16())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize("packed", [False, True])
def test_folders_of_version_1_go_on_loading(tmp_path, packed):
    folder, model = tmp_path / "q", small_model()
    save_mixed(model, folder, MixLLMConfig(bits=4, solver="rtn", head=16))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= {"format_version": 1, "head": "int8" if packed else "keep"}
    path.write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    if packed:
        rounded = quantize(tensors[f"{EMBEDDING}.weight"], Grid(bits=8))
        tensors[f"{EMBEDDING}.weight"] = dequantize(rounded)
        save_file(tensors, folder / "model.safetensors")
    wanted = load_model(folder)(IDS)
    if packed:
        del tensors[f"{EMBEDDING}.weight"]
        tensors |= {f"{EMBEDDING}.{k}": v for k, v in pack_weight(rounded).items()}
        save_file(tensors, folder / "model.safetensors")
    loaded = load_model(folder)
    assert isinstance(loaded.model.embed_tokens, QuantizedEmbedding) == packed
    found = loaded(IDS)
    # The kernel of packed rows takes bfloat16.
    assert float((found - wanted).detach().norm() / wanted.detach().norm()) < 0.01 * packed + 1e-6


@pytest.mark.parametrize("unit", ["rows", "bytes"])
def test_stored_bytes_are_those_of_the_rows(tmp_path, data, unit):
    model = small_model()
    save_mixed(model, tmp_path / "q", MixLLMConfig(bits=5, unit=unit), data)
    tensors = load_file(tmp_path / "q" / "model.safetensors")
    found = low = high = wanted = rows = 0
    for name, layer in block_linears(model).items():
        four, eight = row_bytes(layer.in_features)
        n8 = tensors[f"{name}.indices_int8"].numel()
        n = layer.out_features
        low, high, wanted = low + n * four, high + n * eight, wanted + n8 * eight + (n - n8) * four
        rows += n
        found += sum(t.nbytes for k, t in tensors.items() if k.startswith(f"{name}."))
    assert found == wanted + 4 * rows  # and a place of each row
    if unit == "bytes":
        budget = int(0.25 * (high - low))
        assert budget - 64 < wanted - low <= budget


def test_an_interrupted_call_goes_on_and_ends_in_the_same_bytes(tmp_path, data, saved, monkeypatch):
    calls = []
    real = mixed_files.quantize_block

    def interrupted(*arguments, **options):
        if len(calls) == 1:
            calls.append("stopped")
            raise KeyboardInterrupt
        calls.append(options["where"])
        return real(*arguments, **options)

    monkeypatch.setattr(mixed_files, "quantize_block", interrupted)
    config = MixLLMConfig(bits=5)
    arguments = (small_model(), tmp_path / "q", config, data)
    with pytest.raises(KeyboardInterrupt):
        save_mixed(*arguments, tokenizer=byte_tokenizer())
    assert [p.name for p in tmp_path.iterdir()] == [".q.partial"]
    monkeypatch.setattr(mixed_files, "row_salience", None)  # is not computed again
    save_mixed(*arguments, tokenizer=byte_tokenizer())
    assert calls == ["model.layers.0", "stopped", "model.layers.1"]
    assert files_of(tmp_path / "q") == files_of(saved)
    assert [p.name for p in tmp_path.iterdir()] == ["q"]


def test_parts_of_another_model_or_config_are_not_taken(tmp_path, data, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mixed_files, "quantize_block", stop)
        with pytest.raises(KeyboardInterrupt):
            save_mixed(small_model(), tmp_path / "q", MixLLMConfig(bits=5), data)
    save_mixed(small_model(3), tmp_path / "q", MixLLMConfig(bits=5), data)
    save_mixed(small_model(3), tmp_path / "fresh", MixLLMConfig(bits=5), data)
    assert files_of(tmp_path / "q") == files_of(tmp_path / "fresh")


def test_rows_are_chosen_by_the_scores_that_are_given(tmp_path):
    model = small_model()
    config = MixLLMConfig(bits=5, solver="rtn")
    layers = block_linears(model)
    scores = {
        name: torch.full((layer.out_features,), float(name.endswith("down_proj")))
        for name, layer in layers.items()
    }
    found = save_mixed(model, tmp_path / "q", config, scores=scores)
    assert found.share_int8["down_proj"] == 1.0
    with pytest.raises(ConfigError, match="one number for each row"):
        save_mixed(model, tmp_path / "r", config, scores={LAYER: torch.ones(3)})


def test_two_at_once_and_missing_rows_are_refused(tmp_path, data):
    with (
        FileLock(tmp_path / ".q.partial" / "lock"),
        pytest.raises(BusyError, match="the quantization into"),
    ):
        save_mixed(small_model(), tmp_path / "q", MixLLMConfig(), data)
    with pytest.raises(ConfigError, match="needs calibration rows"):
        save_mixed(small_model(), tmp_path / "q")
    save_mixed(small_model(), tmp_path / "q", MixLLMConfig(bits=4, solver="rtn"))
    with pytest.raises(ConfigError, match="quantized already"):
        save_mixed(load_model(tmp_path / "q"), tmp_path / "r", MixLLMConfig(), data)


def test_a_weight_that_is_no_number_is_named_and_nothing_stays(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"layers\.0\.mlp\.up_proj holds NaN"):
        save_mixed(model, tmp_path / "q", MixLLMConfig(bits=4, solver="rtn"))
    assert list(tmp_path.iterdir()) == []


LAYER, EMBEDDING = "model.layers.0.mlp.up_proj", "model.embed_tokens"


def four_bits_of(tensors):
    weight = MixedWeight(**{k: tensors[f"{EMBEDDING}.{k}"] for k in MixedWeight.names()})
    eight = torch.arange(weight.shape[0]) > 2
    changed = MixedWeight.of(quantize_rows(weight.dequantized(), eight))
    return {f"{EMBEDDING}.{k}": t for k, t in changed.tensors().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{LAYER}.scale_int4"), f"{LAYER} lacks scale_int4"),
        (lambda t: t.pop("model.norm.weight"), r"lacks 'model\.norm\.weight'"),
        (lambda t: t.update({"extra": torch.ones(1)}), "unexpected tensor 'extra'"),
        (lambda t: t.pop(f"{EMBEDDING}.scale_int8"), f"{EMBEDDING} lacks scale_int8"),
        (lambda t: t.update(four_bits_of(t)), f"{EMBEDDING} must have 8 bits in all its rows"),
        (lambda t: t[f"{LAYER}.scale_int4"].fill_(float("nan")), "finite numbers above 0"),
        (lambda t: t[f"{LAYER}.indices_int4"].fill_(3), "must name each of 128 rows once"),
        (lambda t: t.update({f"{LAYER}.weight": torch.ones(128, 64)}), "unexpected tensor"),
    ],
)
def test_tampered_tensors_are_refused(saved, tmp_path, change, message):
    folder = shutil.copytree(saved, tmp_path / "q")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FileFormatError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "key", ["format_version", "group_size", "activation_bits", "head_activation_bits"]
)
def test_folders_of_another_kind_are_refused(saved, tmp_path, key):
    folder = shutil.copytree(saved, tmp_path / "q")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"][key] = 99
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=f"{key}=99 of sharpen-mixed is not supported"):
        load_model(folder)


def test_truncated_files_are_named(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "q")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(FileFormatError, match="truncated"):
        load_model(folder)
