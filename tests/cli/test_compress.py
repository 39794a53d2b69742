import json
import re

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.compress import Grid, PruneConfig, prune_model, save_quantized
from sharpen.compress.calibration import calibration_dataset
from sharpen.data import TokenDataset
from sharpen.models import load_model, load_tokenizer
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
        (["--prune", "random"], "--prune is wanda or magnitude, got 'random'"),
        (["--prune", "wanda"], "--calibration FILE"),
        (["--prune", "wanda", "--calibration", "no.txt"], "no such data file"),
        (["--sparsity", "0.5"], "Add --prune wanda"),
        (["--prune", "magnitude", "--calibration", "x"], "leave --calibration out"),
        (["--prune", "magnitude", "--sparsity", "1.5"], "sparsity=1.5 must be above 0"),
        (["--prune", "magnitude", "--pattern", "4:2"], "pattern='4:2' must be 'n:m'"),
        (["--prune", "magnitude", "--pattern", "5:7"], "7 must divide"),
        (["--prune", "magnitude", "--sparsity", "0.3", "--pattern", "2:4"], "contradicts"),
        (["--prune", "magnitude", "--group", "32"], "belong to quantization"),
    ],
)
def test_wrong_usage_says_what_is_right_and_writes_nothing(model, tmp_path, options, message):
    done = invoke("compress", model, tmp_path / "q", *options, "--json")
    assert done.exit_code == 2
    assert message in json.loads(done.stdout)["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_pruned_weights_are_zero_and_the_rest_is_as_it_was(model, tmp_path):
    out = tmp_path / "pruned"
    pruning = ("--prune", "magnitude", "--sparsity", 0.25, "--dtype", "float32")
    done = invoke("compress", model, out, *pruning, "--json")
    assert done.exit_code == 0, done.stdout
    document = json.loads(done.stdout)
    assert document["zeros"] == pytest.approx(0.25, abs=0.01)
    assert "bits" not in document
    before, after = load_model(model), load_model(out)
    for name, weight in before.named_parameters():
        found = after.get_parameter(name)
        assert bool(((found == weight) | (found == 0)).all())
    assert torch.equal(after.lm_head.weight, before.lm_head.weight)
    text = invoke("compress", model, out, *pruning, "--force").stdout
    assert "of the blocks' weights are zero" in text


def test_wanda_looks_at_texts_as_the_stage_does(model, tmp_path):
    (tmp_path / "texts").mkdir()
    rows = [{"text": f"{i} and {i * i} are numbers. " * 40} for i in range(30)]
    (tmp_path / "texts" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts, data = tmp_path / "texts", tmp_path / "data"
    found = []
    for source in (texts, data):
        if source == data:
            data.mkdir()
            calibration_dataset(texts, load_tokenizer(model), data, rows=64)
        out = tmp_path / f"from-{source.name}"
        pruning = ("--prune", "wanda", "--pattern", "2:4", "--calibration", source)
        done = invoke("compress", model, out, *pruning, "--bits", 8, "--json")
        assert done.exit_code == 0, done.stdout
        document = json.loads(done.stdout)
        assert (document["zeros"], document["bits"]) == (0.5, 8)
        found.append((out / "model.safetensors").read_bytes())
    assert found[0] == found[1]
    plain = load_model(model)
    prune_model(plain, PruneConfig(pattern="2:4"), TokenDataset(data, "train"))
    save_quantized(plain, tmp_path / "direct", Grid(bits=8), dtype=torch.bfloat16)
    assert (tmp_path / "direct" / "model.safetensors").read_bytes() == found[0]


def test_texts_without_text_are_said(model, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    pruning = ("--prune", "wanda", "--calibration", tmp_path / "empty.jsonl")
    done = invoke("compress", model, tmp_path / "q", *pruning, "--json")
    assert done.exit_code == 2
    assert "has no text to calibrate on" in json.loads(done.stdout)["error"]["message"]


def test_the_short_form_is_quantize(model, tmp_path):
    short = invoke("compress", model, tmp_path / "a", "--bits", 8, "--json")
    long = invoke("compress", "quantize", model, tmp_path / "b", "--bits", 8, "--json")
    assert (short.exit_code, long.exit_code) == (0, 0)
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert first == second


def test_mixllm_writes_a_folder_that_loads_and_says_where_the_bits_went(model, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("The sea is deep. The sea is wide. The sea is blue. " * 200)
    out = tmp_path / "mixed"
    words = ("compress", "mixllm", model, "--out", out, "--calibration", text, "--samples", 4)
    done = invoke(*words, "--bits", 5, "--json")
    assert done.exit_code == 0, done.stdout
    document = json.loads(done.stdout)
    assert document["rows_int8"] == document["rows"] // 4
    assert document["weight_bytes"] == (out / "model.safetensors").stat().st_size
    assert document["weight_bytes_before"] == 2 * load_model(model).spec.num_parameters
    assert set(document["share_int8"]) >= {"q_proj", "down_proj"}
    assert (document["bits"], document["head"]) == (5, 8)
    weights = load_model(model).spec.num_parameters
    stored = sum(tensor.nbytes for tensor in load_file(out / "model.safetensors").values())
    assert document["stored_bits"]["all"] == pytest.approx(8 * stored / weights)
    assert load_model(out)(torch.tensor([[1, 2]])).shape == (1, 2, 304)
    assert invoke("eval", out, "--text", text, "--window", 64).exit_code == 0
    refused = invoke(*words, "--json")
    assert "--force" in json.loads(refused.stdout)["error"]["message"]
    told = " ".join(invoke(*words, "--bits", 4, "--solver", "rtn", "--force").stdout.split())
    assert "0 of 1,024 output features have 8 bits" in told
    assert "times less than" in told
    assert "in the head" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "3"], "bits=3.0 must be from 4"),
        (["--unit", "bits"], "unit"),
        (["--solver", "obq"], "solver"),
        (["--samples", "0"], "calibration=0"),
        (["--calibration", "no.txt"], "no such data file"),
        (["--dtype", "int8"], "--dtype is bfloat16 or float32"),
        (["--head", "4"], "head must be one of 8, 16, got 4"),
    ],
)
def test_wrong_usage_of_mixllm_says_what_is_right(model, tmp_path, options, message):
    done = invoke("compress", "mixllm", model, "--out", tmp_path / "q", *options, "--json")
    assert done.exit_code == 2
    assert message in json.loads(done.stdout)["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_salience_says_where_the_rows_are_that_mixllm_would_choose(model, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("The sea is deep. The sea is wide. The sea is blue. " * 200)
    words = ("compress", "salience", model, "--calibration", text, "--samples", 4, "--bits", 5)
    plot = tmp_path / "salience.png"
    done = invoke(*words, "--plot", plot, "--json")
    assert done.exit_code == 0, done.stdout
    document = json.loads(done.stdout)
    assert (document["share"], document["samples"]) == (0.25, 4)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    for wrong, why in ((tmp_path / "none" / "x.png", "no folder"), ("x.doc", "its ending")):
        refused = invoke(*words, "--plot", wrong)
        assert (refused.exit_code, why in refused.stderr) == (2, True)
    assert 0.25 < document["held"] <= 1
    assert sum(document["salience_of_kind"].values()) == pytest.approx(1)
    mixed = invoke(
        *("compress", "mixllm", model, "--out", tmp_path / "q", "--calibration", text),
        *("--samples", 4, "--bits", 5, "--json"),
    )
    assert json.loads(mixed.stdout)["share_int8"] == pytest.approx(document["share_of_kind"])
    told = " ".join(invoke(*words).stdout.split())
    assert "The 25% of output features that matter most hold" in told


@pytest.mark.parametrize(
    "words",
    [("mixllm", "--samples", 2, "--out"), ("quantize", "--prune", "wanda")],
    ids=["mixllm", "wanda"],
)
def test_a_tokenizer_of_another_model_is_named_before_any_work(tmp_path, words):
    model = save_small_model(tmp_path / "narrow", vocab_size=64)
    (tmp_path / "notes.txt").write_text("The sea is deep. The sea is wide. " * 100)
    kind, *options = words
    out = [*options, tmp_path / "q"] if kind == "mixllm" else [tmp_path / "q", *options]
    done = invoke("compress", kind, model, *out, "--calibration", tmp_path / "notes.txt", "--json")
    assert done.exit_code == 2
    message = json.loads(done.stdout)["error"]["message"]
    assert re.search(r"has the token \d+ in row 0, and the model knows 0 to 63", message)
    assert {path.name for path in tmp_path.iterdir()} == {"narrow", "notes.txt"}


def test_an_interrupted_mixllm_says_that_the_same_command_goes_on(model, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("sharpen.compress.mixed_files.quantize_block", stop)
    words = ("compress", "mixllm", model, "--out", tmp_path / "q", "--samples", 2, "--json")
    done = invoke(*words)
    assert done.exit_code == 130
    assert "goes on where it stopped" in json.loads(done.stdout)["error"]["message"]
    monkeypatch.undo()
    assert invoke(*words).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["q"]
