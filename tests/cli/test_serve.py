import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import openai
import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from small_models import save_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "sharpen.cli.main", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_one_json_line_then_answers_then_a_clean_end(folder):
    process = start(
        str(folder), "--port", "0", "--dtype", "float32", "--json", SHARPEN_API_KEY="from-env"
    )
    try:
        line = json.loads(process.stdout.readline())
        assert line["pid"] == process.pid
        assert line["model"] == "tiny"
        with openai.OpenAI(base_url=f"{line['url']}/v1", api_key="from-env") as client:
            answer = client.completions.create(model="tiny", prompt="a", max_tokens=3)
            assert answer.usage.prompt_tokens == 1
        assert httpx.get(f"{line['url']}/v1/models").status_code == 401
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, rest, errors) == (0, "", "")


def test_json_logs_have_a_line_for_every_request(folder):
    process = start(
        str(folder), "--port", "0", "--dtype", "float32", "--json", "--log-format", "json"
    )
    try:
        url = json.loads(process.stdout.readline())["url"]
        httpx.get(f"{url}/health", headers={"X-Request-Id": "mine"})
        httpx.post(f"{url}/v1/completions", json={})
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    health, failed = (
        line for line in map(json.loads, errors.splitlines()) if line["logger"].endswith("guard")
    )
    assert health["message"] == "GET /health 200"
    assert health["request_id"] == "mine"
    assert (failed["status"], failed["path"], failed["level"]) == (400, "/v1/completions", "INFO")
    assert failed["seconds"] > 0
    assert failed["time"].endswith("Z")


def test_a_stop_signal_lets_running_streams_finish(folder):
    process = start(str(folder), "--port", "0", "--dtype", "float32", "--json", "--name", "m")
    try:
        url = json.loads(process.stdout.readline())["url"]
        body = {"model": "m", "prompt": "a", "max_tokens": 120, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            frames = [line for line in lines if line]
        assert frames[-1] == "data: [DONE]"
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0


def test_a_busy_port_ends_with_code_2(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(
            build_app(["serve"]), ["serve", str(folder), "--port", port, "--json"]
        )
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["exit_code"]) == ("BusyError", 2)
    assert port in error["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nowhere"], 2),
        (["{folder}", "--dtype", "int3"], 2),
        (["{folder}", "--port", "99999"], 2),
        (["{folder}", "--port", "0", "--max-batch", "0"], 2),
        (["{folder}", "--port", "0", "--max-batched-tokens", "0"], 2),
        (["{folder}", "--port", "0", "--kv-cache-memory", "2GB"], 2),
        (["{folder}", "--port", "0", "--kv-cache-memory", "1KiB"], 2),
        (["{folder}", "--port", "0", "--speculate", "eagle"], 2),
        (["{folder}", "--port", "0", "--aging", "-1"], 2),
        (["{folder}", "--port", "0", "--block-size", "0", "--no-prefix-caching"], 2),
        (["{folder}", "--port", "0", "--metrics-alias", "a b"], 2),
        (["{folder}", "--port", "0", "--tool-parser", "xml"], 2),
        (["{folder}", "--port", "0", "--queue-timeout", "-1"], 2),
        (["{folder}", "--port", "0", "--log-format", "xml"], 2),
        (["{folder}", "--port", "0", "--worker", "http://127.0.0.1:1"], 2),
        (["{folder}", "--port", "0", "--policy", "kv_round_robin"], 2),
        (["{folder}", "--port", "0", "--layerwise-from", "1"], 2),
        (["{folder}", "--port", "0", "--kv-checksum"], 2),
        (["{folder}", "--port", "0", "--kv-connector", "shm"], 2),
        (["{folder}", "--port", "0", "--lora", "x"], 2),
        (["{folder}", "--port", "0", "--lora", "x=nowhere"], 2),
        (["{folder}", "--port", "0", "--lora", "x=a", "--lora", "x=b"], 2),
        (["{folder}", "--port", "0", "--adapter", "{folder}", "--host", "0.0.0.0"], 2),
    ],
)
def test_mistakes_end_with_their_code(folder, arguments, code):
    filled = [argument.format(folder=folder) for argument in arguments]
    result = CliRunner().invoke(build_app(["serve"]), ["serve", *filled])
    assert result.exit_code == code
    assert "error:" in result.stderr
    assert ("anyone who reaches" in result.stderr) == ("--host" in arguments)
