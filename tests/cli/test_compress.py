import json

import pytest
import torch
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.models import load_model
from small_models import save_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("compress") / "tiny")


def invoke(*arguments):
    words = [str(a) for a in arguments]
    return CliRunner().invoke(build_app(words), words)


def test_a_folder_that_loads_and_its_honest_bytes(model, tmp_path):
    out = tmp_path / "int4"
    done = invoke("compress", model, out, "--bits", 4, "--group", 32, "--head", "int8", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    files = list(out.iterdir())
    assert document["weight_bytes"] == (out / "model.safetensors").stat().st_size
    assert document["folder_bytes"] == sum(f.stat().st_size for f in files)
    assert document["weight_bytes_before"] == 2 * load_model(model).spec.num_parameters
    assert {f.name for f in files} >= {"config.json", "tokenizer.json", "chat_template.jinja"}
    assert load_model(out)(torch.tensor([[1, 2]])).shape == (1, 2, 304)


def test_an_existing_folder_is_replaced_only_by_force(model, tmp_path):
    out = tmp_path / "q"
    assert invoke("compress", model, out, "--bits", "8").exit_code == 0
    before = (out / "config.json").read_text()
    refused = invoke("compress", model, out, "--json")
    assert refused.exit_code == 2
    assert "--force" in json.loads(refused.stdout)["error"]["message"]
    assert (out / "config.json").read_text() == before
    done = invoke("compress", model, out, "--force")
    assert done.exit_code == 0
    assert "times less" in done.stdout.replace("\n", " ")
    assert (out / "config.json").read_text() != before
    (tmp_path / "precious").mkdir()
    kept = invoke("compress", model, tmp_path / "precious", "--force", "--json")
    assert "not a model folder" in json.loads(kept.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "3"], "--bits is 4 or 8, got 3"),
        (["--group", "48"], "group=48 must be 32, 64, 128"),
        (["--group", "128"], "does not divide the 64 columns"),
        (["--clip", "best"], "--clip is none or mse"),
        (["--head", "int4"], "--head is keep or int8"),
        (["--dtype", "int8"], "--dtype is bfloat16 or float32"),
    ],
)
def test_wrong_usage_says_what_is_right_and_writes_nothing(model, tmp_path, options, message):
    done = invoke("compress", model, tmp_path / "q", *options, "--json")
    assert done.exit_code == 2
    assert message in json.loads(done.stdout)["error"]["message"]
    assert list(tmp_path.iterdir()) == []
