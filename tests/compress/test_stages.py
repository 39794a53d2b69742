"""The compress stage: variants that load, numbers that can be recomputed, equal bytes."""

import math

import pytest
import torch

from sharpen.compress.config import CompressConfig
from sharpen.compress.linear import weight_bytes
from sharpen.compress.run import decode_speed, folder_bytes
from sharpen.compress.stages import COMPRESS
from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError
from sharpen.core.files import sha256_file
from sharpen.core.stage import Artifact, RecipeContext, StageContext
from sharpen.data.shards import TokenDataset
from sharpen.eval import dataset_loss
from sharpen.models import LoraConfig, add_lora, load_model, load_tokenizer, save_adapter
from small_models import save_small_dataset, save_small_model, small_model


def make_context(folder, *, name="out", **inputs):
    model = folder / "model"
    if not model.exists():
        save_small_model(model)
    output = folder / name
    output.mkdir()
    return StageContext(
        stage="compress", seed=0, model=str(model), inputs=inputs, output=output, work=folder
    )


def artifact(kind, path):
    return Artifact(kind=kind, path=path, stage="earlier", key=kind)


CONFIG = {"variants": [{"bits": 8}, {"bits": 4, "group": 32}], "limit": 5, "new_tokens": 3}


def test_each_variant_loads_and_has_the_reported_numbers(tmp_path):
    save_small_dataset(tmp_path / "data")
    context = make_context(tmp_path, dataset=artifact("dataset", tmp_path / "data"))
    result = COMPRESS.run(from_dict(CompressConfig, CONFIG), context)
    data = TokenDataset(tmp_path / "data", "valid")
    found = result.results
    full = load_model(tmp_path / "model").to(torch.bfloat16)
    assert found["baseline"]["bytes"] == 2 * full.spec.num_parameters
    wanted = math.exp(dataset_loss(full, data, limit=5)[0])
    assert found["baseline"]["perplexity"] == pytest.approx(wanted)
    for name in ("int8", "int4"):
        folder = context.output / name
        model = load_model(folder, dtype=torch.bfloat16)
        assert found[name]["bytes"] == folder_bytes(folder)
        wanted = math.exp(dataset_loss(model, data, limit=5)[0])
        assert found[name]["perplexity"] == pytest.approx(wanted)
        assert result.measured[name]["memory_bytes"] == weight_bytes(model)
        assert result.measured[name]["tokens_per_s"] > 0
        assert load_tokenizer(folder).chat_template is not None
    assert found["int4"]["bytes"] < found["int8"]["bytes"] < found["baseline"]["bytes"]
    (section,) = COMPRESS.report({**found, "time_s": 1.0})
    rows = section.blocks[0].rows
    assert [row[0] for row in rows] == ["baseline (bfloat16)", "int8", "int4"]
    assert rows[0][2] == "100.0%"


def test_an_adapter_is_merged_before_rounding(tmp_path):
    model = small_model()
    add_lora(model, LoraConfig(rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.3)
    save_adapter(model, tmp_path / "adapter", LoraConfig(rank=2))
    ids = torch.tensor([[1, 2, 3, 4]])
    context = make_context(tmp_path, adapter=artifact("adapter", tmp_path / "adapter"))
    config = CompressConfig(variants=from_dict(CompressConfig, CONFIG).variants[:1], new_tokens=0)
    result = COMPRESS.run(config, context)
    assert "tokens_per_s" not in result.measured["int8"]
    assert "perplexity" not in result.results["int8"]
    wanted = load_model(tmp_path / "model", adapter=tmp_path / "adapter")(ids).detach()
    found = load_model(context.output / "int8")(ids).detach()
    plain = load_model(tmp_path / "model")(ids).detach()
    assert float((found - wanted).norm()) < 0.1 * float((plain - wanted).norm())


def test_a_trained_model_takes_the_recipes_place(tmp_path):
    save_small_model(tmp_path / "trained", seed=7)
    context = make_context(tmp_path, model=artifact("model", tmp_path / "trained"))
    config = from_dict(
        CompressConfig,
        {"variants": [{"bits": 8, "name": "w8", "head": "int8"}], "new_tokens": 0},
    )
    COMPRESS.run(config, context)
    ids = torch.tensor([[1, 2, 3, 4]])
    found, wanted = load_model(context.output / "w8")(ids), small_model(7)(ids)
    assert float((found - wanted).detach().norm() / wanted.detach().norm()) < 0.05


def test_the_same_config_gives_the_same_bytes(tmp_path):
    config = from_dict(CompressConfig, {**CONFIG, "new_tokens": 0})
    contexts = [make_context(tmp_path, name=name) for name in ("a", "b")]
    for context in contexts:
        COMPRESS.run(config, context)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) > 8
    for file in files:
        assert sha256_file(tmp_path / "a" / file) == sha256_file(tmp_path / "b" / file)


def test_a_data_set_without_held_out_rows_gives_no_perplexity(tmp_path):
    save_small_dataset(tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"valid"', '"other"'))
    context = make_context(tmp_path, dataset=artifact("dataset", tmp_path / "data"))
    config = from_dict(CompressConfig, {"variants": [{"bits": 4}], "new_tokens": 0})
    assert "perplexity" not in COMPRESS.run(config, context).results["int4"]


def test_speed_counts_the_tokens_asked_for():
    calls = []
    model = small_model()
    forward = model.forward
    model.forward = lambda *a, **k: calls.append(a[0].shape[1]) or forward(*a, **k)
    assert decode_speed(model, [1, 2, 3], new_tokens=5, repeats=2) > 0
    assert calls.count(3) == 3  # one prompt pass each, the first to warm up
    assert calls.count(1) == 3 + 2 * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": []}, "variants is empty"),
        ({"variants": [{"bits": 4}, {"bits": 4, "group": 64}]}, "two variants are called 'int4'"),
        ({"variants": [{"bits": 3}]}, "must be"),
        ({"variants": [{"bits": 4, "group": 48}]}, "group=48 must be 32, 64, 128"),
        ({"variants": [{"bits": 4, "name": "../x"}]}, "must be letters, digits"),
        ({"variants": [{"bits": 4, "name": "baseline"}]}, "not 'baseline'"),
        ({"limit": 0}, "limit=0"),
        ({"new_tokens": -1}, "new_tokens=-1"),
        ({"variant": []}, "Did you mean 'variants'"),
    ],
)
def test_configs_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(CompressConfig, options)


def test_mixed_rows_are_a_variant_calibrated_on_the_training_split(tmp_path):
    save_small_dataset(tmp_path / "data", rows=20)
    context = make_context(tmp_path, dataset=artifact("dataset", tmp_path / "data"))
    variants = [{"mixllm": {"bits": 5, "calibration": 4}}, {"bits": 4, "group": 64}]
    config = from_dict(CompressConfig, {"variants": variants, "limit": 5, "new_tokens": 2})
    found = COMPRESS.run(config, context)
    mixed = found.results["mixllm"]
    assert mixed["rows_int8"] == mixed["rows"] // 4
    assert mixed["bytes"] == folder_bytes(context.output / "mixllm")
    assert found.measured["mixllm"]["tokens_per_s"] > 0
    assert load_tokenizer(context.output / "mixllm").chat_template is not None
    assert mixed["perplexity"] > 1
    assert {path.name for path in context.output.iterdir()} == {"mixllm", "int4", "results.json"}


def test_a_recipe_takes_every_key_of_the_commands_and_texts_of_its_own(tmp_path):
    context = make_context(tmp_path)
    (tmp_path / "notes.txt").write_text("The sea is deep. The sea is wide. " * 200)
    mixllm = {
        "bits": 6.0,
        "unit": "bytes",
        "solver": "awq",
        "clip": False,
        "calibration": 3,
        "head": 16,
    }
    quantized = {
        "bits": 8,
        "group": 32,
        "symmetric": False,
        "clip": "mse",
        "head": "int8",
        "prune": {"method": "wanda", "pattern": "2:4", "calibration": 5},
        "name": "both",
    }
    options = {
        "variants": [{"mixllm": mixllm}, quantized],
        "new_tokens": 0,
        "dtype": "float32",
        "calibration_texts": "notes.txt",
    }
    config = from_dict(CompressConfig, options)
    assert config.calibration_rows == 5
    context.folder = tmp_path
    found = COMPRESS.run(config, context).results
    assert (found["mixllm"]["head"], found["mixllm"]["stored_bits"]["head"]) == (16, 32)
    assert found["both"]["zeros"] == pytest.approx(0.5)
    recipe = RecipeContext(model=str(tmp_path / "model"), seed=0, folder=tmp_path)
    first = COMPRESS.fingerprint(config, recipe)
    (tmp_path / "notes.txt").write_text("The sea is blue. " * 400)
    assert COMPRESS.fingerprint(config, recipe) != first
    plain = from_dict(CompressConfig, {**options, "variants": [{"bits": 8}]})
    assert COMPRESS.fingerprint(plain, recipe) is None


def test_mixed_rows_without_a_data_set_say_what_is_missing(tmp_path):
    context = make_context(tmp_path)
    config = from_dict(CompressConfig, {"variants": [{"mixllm": {}}], "new_tokens": 0})
    with pytest.raises(ConfigError, match="needs calibration rows"):
        COMPRESS.run(config, context)
