"""Workers and a router as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import openai
import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.serve import LLM, SamplingParams
from small_models import save_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


def start(folder, *arguments):
    words = ["serve", str(folder), "--port", "0", "--json", *arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "sharpen.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "SHARPEN_API_KEY": "secret", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_processes_split_a_model_and_survive_the_death_of_one(folder):
    engine = ("--dtype", "float32", "--max-context", "200", "--layerwise-from", "20")
    workers = [
        start(folder, "--role", role, "--kv-checksum", *engine)
        for role in ("prefill", "decode", "decode")
    ]
    everyone = list(workers)
    try:
        urls = [json.loads(one.stdout.readline())["url"] for one in workers]
        router = start(folder, "--role", "router", *(f"--worker={url}" for url in urls))
        everyone.append(router)
        url = json.loads(router.stdout.readline())["url"]
        alone = LLM(folder, dtype="float32")
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:

            def ask(prompt):
                answer = client.completions.create(
                    model="tiny", prompt=prompt, temperature=0, max_tokens=12
                )
                return answer.choices[0].text

            def expected(prompt):
                return alone.generate(prompt, SamplingParams(temperature=0, max_tokens=12)).text

            prompts = ["hello", "b" * 120, "c" * 60]
            assert [ask(p) for p in prompts] == [expected(p) for p in prompts]
            os.kill(workers[1].pid, signal.SIGKILL)
            workers[1].wait()
            assert [ask(p) for p in prompts * 2] == [expected(p) for p in prompts * 2]
        for one in (router, workers[0], workers[2]):
            one.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        codes = [one.wait(deadline - time.monotonic()) for one in (router, workers[0], workers[2])]
        assert codes == [0, 0, 0]
    finally:
        for one in everyone:
            one.kill()
            one.wait()
            one.stdout.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--role", "both"],
        ["--role", "router"],
        ["--role", "router", "--worker", "nowhere"],
        ["--role", "decode", "--worker", "http://127.0.0.1:1"],
        ["--worker", "http://127.0.0.1:1"],
        ["--role", "decode", "--layerwise-from", "-1"],
    ],
)
def test_mistakes_are_code_2(folder, arguments):
    words = ["serve", str(folder), "--port", "0", *arguments]
    result = CliRunner().invoke(build_app(["serve"]), words)
    assert result.exit_code == 2
    assert "error:" in result.stderr
