import dataclasses
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.core.errors import ConfigError, ExecutionError
from sharpen.models.load import resolve_model
from sharpen.serve.bench.contenders import CONTENDERS
from sharpen.serve.bench.peers import choose_peers
from sharpen.serve.bench.roofline import measure_bandwidth, token_bytes
from sharpen.serve.bench.throughput import Entry, Settings, measure_throughput

FEW = Settings(batches=(1, 2), new_tokens=4, prompt=8, prefill=16, passes=1)


@pytest.mark.peer
def test_engines_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    tiny = str(resolve_model("tiny"))
    entries = [Entry("sharpen", tiny, "ours"), Entry("hf-float32", tiny)]
    long = dataclasses.replace(FEW, new_tokens=24, passes=3)  # a pass may be lost to other work
    rows = measure_throughput(entries, long, tmp_path)
    assert [row.name for row in rows] == ["ours", "hf-float32"]
    for row in rows:
        assert not row.error
        assert set(row.decode) == {1, 2}
        assert row.prefill is not None and row.prefill > 0
        assert row.peak_bytes > 1 << 26


def test_what_cannot_start_is_told(tmp_path: Path) -> None:
    missing = Entry("sharpen", str(tmp_path / "no_such_model"))
    with pytest.raises(ExecutionError, match=r"sharpen: it did not start: .*no_such_model"):
        measure_throughput([missing], FEW, tmp_path / "work")
    with pytest.raises(ConfigError, match="no contender 'vlm'"):
        measure_throughput([Entry("vlm", "tiny")], FEW, tmp_path)


def test_peers_that_are_missing_are_left_out_with_the_reason(tmp_path: Path) -> None:
    model = str(resolve_model("tiny"))
    chosen, left_out = choose_peers("auto", model)
    assert set(chosen) | set(left_out) == set(CONTENDERS) - {"sharpen"}
    assert "not installed" in left_out["llama.cpp"] or "gguf" in left_out["llama.cpp"]
    assert choose_peers("none", model) == ([], {})
    with pytest.raises(ConfigError, match="Did you mean 'hf-int8'"):
        choose_peers("hf-in8", model)
    with pytest.raises(ConfigError, match="cannot be timed"):
        choose_peers("llama.cpp", model)
    with pytest.raises(ConfigError, match="does not run"):
        choose_peers("auto", model, str(tmp_path / "python"))
    assert choose_peers("auto", model, sys.executable) == (chosen, left_out)


def test_bytes_of_a_token_are_those_of_the_matrices() -> None:
    path = resolve_model("tiny")
    config = json.loads((Path(path) / "config.json").read_text())
    hidden, layers, width = (
        config[k] for k in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    heads = config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    block = hidden * heads * size + hidden * config["num_attention_heads"] * size
    block += 3 * hidden * width + 2 * hidden
    total = layers * block + hidden + config["vocab_size"] * hidden
    assert token_bytes(path) == 2 * total
    assert measure_bandwidth(1) > 1e8


def test_the_command_measures_a_load() -> None:
    words = ["bench", "serve", "--model", "tiny", "--mode", "load", "--requests", "3"]
    words += ["--rate", "poisson:50", "--dataset", "random:in=8,out=4", "--json"]
    done = CliRunner().invoke(build_app(words), words)
    assert done.exit_code == 0, done.stderr
    (load,) = json.loads(done.stdout)["loads"]
    assert (load["requests"], load["failed"], load["rate"]) == (3, 0, 50.0)
    wrong = CliRunner().invoke(build_app(words), [*words[:4], "--mode", "fast"])
    assert wrong.exit_code == 2
    assert "must be throughput, load or all" in wrong.stderr
