import json

import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.serve import LLM, SamplingParams
from small_models import save_small_model

GREEDY = SamplingParams(temperature=0, max_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32")


def chat(folder, *arguments, **settings):
    common = ["--dtype", "float32", "--max-tokens", "6", "--temperature", "0"]
    return CliRunner().invoke(
        build_app(["chat"]), ["chat", str(folder), *common, *arguments], **settings
    )


def test_one_question_prints_its_answer(folder, llm):
    expected = llm.chat([{"role": "user", "content": "hi"}], GREEDY)
    result = chat(folder, "--prompt", "hi")
    assert (result.exit_code, result.stdout) == (0, expected.text + "\n")
    document = json.loads(chat(folder, "--prompt", "hi", "--json").stdout)
    assert document == {
        "text": expected.text,
        "tokens": len(expected.outputs[0].ids),
        "finish_reason": expected.outputs[0].finish_reason,
    }


def test_a_conversation_remembers_its_turns(folder, llm):
    messages = [{"role": "system", "content": "s"}]
    shown = ""
    for line in ("one", "two"):
        messages.append({"role": "user", "content": line})
        text = llm.chat(messages, GREEDY).text
        messages.append({"role": "assistant", "content": text})
        shown += text + "\n"
    result = chat(folder, "--system", "s", input="one\ntwo\n\nnever read\n")
    assert (result.exit_code, result.stdout) == (0, shown)


def test_the_end_of_input_ends_it(folder):
    assert chat(folder, input="").exit_code == 0


def test_json_needs_a_question(folder):
    result = chat(folder, "--json")
    assert result.exit_code == 2
    assert "--prompt" in json.loads(result.stdout)["error"]["message"]
