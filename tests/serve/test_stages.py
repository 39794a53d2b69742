import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sharpen.core.errors import ConfigError, ExecutionError, FileFormatError
from sharpen.core.run import run
from sharpen.core.stage import Artifact, StageContext
from sharpen.serve import LLM, SamplingParams
from sharpen.serve.stages import SERVE, CheckConfig, ServeConfig, _what, run_serve
from small_models import save_small_model

CHECK = CheckConfig(prompt="hi", max_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


def context(tmp_path, model=None, **inputs):
    """A stage's context; ``inputs`` are folders of artifacts, by kind."""
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    artifacts = {
        kind: Artifact(kind=kind, path=path, stage="compress", key="0")
        for kind, path in inputs.items()
    }
    return StageContext(
        stage="serve",
        seed=0,
        model=model,
        inputs=artifacts,
        output=tmp_path / "out",
        work=tmp_path / "work",
    )


def made(folder):
    """The artifact of a stage that made a model."""
    return Artifact(kind="model", path=folder, stage="compress", key="0")


def test_a_recipe_starts_the_server_and_asks_it(folder, tmp_path):
    recipe = {
        "sharpen": 1,
        "name": "r",
        "model": str(folder),
        "serve": {
            "dtype": "float32",
            "check": {"prompt": "hi", "system": "be brief", "max_tokens": 8},
        },
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    done = run(tmp_path / "r.yaml", output=tmp_path / "run")
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    expected = LLM(folder, dtype="float32").chat(
        messages, SamplingParams(temperature=0, max_tokens=8)
    )
    summary = done.summary["serve"]
    assert summary["ok"] is True
    assert summary["answer"] == expected.text
    assert summary["tokens"] == len(expected.outputs[0].ids)
    assert {"ttft_s", "startup_s"} <= summary.keys()
    files = {path.name for path in done.artifact("serve").iterdir()} - {"stage.json"}
    assert files == {"answer.json"}
    (section,) = SERVE.report(summary)
    assert expected.text in [getattr(block, "text", None) for block in section.blocks]


def test_the_variant_of_a_model_artifact_is_served(folder, tmp_path):
    stage = context(tmp_path, "unused")
    stage.inputs = {"model": made(folder.parent)}
    result = run_serve(ServeConfig(variant="tiny", dtype="float32", check=CHECK), stage)
    assert result.results["ok"] is True
    assert json.loads((tmp_path / "out" / "answer.json").read_text()) == result.results


def test_an_adapter_is_folded_in_unless_the_model_was_made_from_it(folder, tmp_path):
    adapter = tmp_path / "adapter"
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    (quantized / "config.json").write_text('{"quantization_config": {}}')
    stage = context(tmp_path, "base", adapter=adapter)
    assert _what(ServeConfig(), stage) == ("base", str(adapter))
    stage.inputs = {**stage.inputs, "model": made(folder)}
    assert _what(ServeConfig(), stage) == (str(folder), str(adapter))
    stage.inputs = {**stage.inputs, "model": made(quantized)}
    assert _what(ServeConfig(), stage) == (str(quantized), None)


def test_a_wrong_variant_is_named(folder, tmp_path):
    stage = context(tmp_path, "base")
    with pytest.raises(ConfigError, match="no earlier stage made a model"):
        run_serve(ServeConfig(variant="int4"), stage)
    stage.inputs = {"model": made(folder.parent)}
    for variant in ("int4", None):
        with pytest.raises(ConfigError, match="tiny"):
            run_serve(ServeConfig(variant=variant), stage)


def test_a_server_that_cannot_start_passes_its_error_on(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(FileFormatError, match="damaged"):
        run_serve(ServeConfig(check=CHECK), context(tmp_path, str(broken)))


def test_a_server_that_takes_too_long_is_stopped(folder, tmp_path):
    with pytest.raises(ExecutionError, match="startup_s"):
        run_serve(ServeConfig(startup_s=0.01), context(tmp_path, str(folder)))


def test_the_server_dies_with_the_process_that_started_it(folder):
    request = {
        "model": str(folder),
        "adapter": None,
        "name": "x",
        "port": 0,
        "dtype": "float32",
        "api_key": "k",
    }
    program = (
        "import json, os, subprocess, sys\n"
        "request = json.loads(sys.argv[1]) | {'parent': os.getpid()}\n"
        "child = [sys.executable, '-m', 'sharpen.serve.api.child', json.dumps(request)]\n"
        "subprocess.Popen(child).wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(request)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())["pid"]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while _alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: ServeConfig(port=-1),
        lambda: ServeConfig(startup_s=0),
        lambda: CheckConfig(prompt=""),
        lambda: CheckConfig(max_tokens=0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()
