import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from sharpen.core.model_spec import ModelSpec
from sharpen.serve.split.fingerprint import adapter_hash, content_hash, fingerprint
from small_models import save_small_adapter, save_small_model


@pytest.fixture
def folder(tmp_path):
    return save_small_model(tmp_path / "base")


def of(folder, dtype=torch.float32, **more):
    return fingerprint(folder, ModelSpec.from_ref(folder), dtype, **more)


@pytest.mark.parametrize("row", [0, 150, 303])
def test_one_row_of_one_weight_makes_another_model(folder, tmp_path, row):
    other = save_small_model(tmp_path / "tuned")
    assert of(other) == of(folder)
    file = next(other.glob("*.safetensors"))
    weights = load_file(file)
    name = next(name for name in weights if "embed_tokens" in name)
    weights[name][row] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert of(other) != of(folder)


def test_type_and_adapter_count_and_places_do_not(folder, tmp_path):
    assert of(folder) != of(folder, torch.bfloat16)
    adapters = [tmp_path / name for name in ("one", "same", "other")]
    for adapter, seed in zip(adapters, (1, 1, 2), strict=True):
        save_small_adapter(adapter, seed)
    prints = [of(folder, adapter=adapter) for adapter in adapters]
    assert prints[0] == prints[1] != prints[2]
    assert of(folder) not in prints
    config = adapters[1] / "adapter_config.json"
    scaled = config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9')
    assert scaled != config.read_text()
    assert adapter_hash(adapters[1]) == adapter_hash(adapters[0])
    config.write_text(scaled)
    assert adapter_hash(adapters[1]) != adapter_hash(adapters[0])
    moved = folder.rename(tmp_path / "moved")
    assert of(moved, adapter=adapters[0]) == prints[0]


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "large.gguf"
    with file.open("wb") as data:
        data.truncate(65 << 20)
    first = content_hash(file)
    before = file.stat()

    def change(at):
        with file.open("r+b") as data:
            data.seek(at)
            data.write(b"\1")

    change(40 << 20)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_hash(file) == first  # kept: neither size nor time differ
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = content_hash(file)
    assert second != first
    kept = list((tmp_path / "cache" / "sharpen" / "weights").iterdir())
    assert [one.suffix for one in kept] == [".json"]
    kept[0].write_text("nonsense")
    assert content_hash(file) == second
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # no folder can be made there
    assert content_hash(file) == second
