import json

import pytest

from small_models import save_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("monitor") / "tiny")


def write(path, texts):
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def test_a_reference_is_made_and_a_log_is_judged_by_it(invoke, model, tmp_path):
    usual = [f"What is {i} + {i}?" for i in range(60)]
    prompts, out = write(tmp_path / "p.jsonl", usual), tmp_path / "r.json"
    words = ("monitor", "reference", model, prompts, out, "--dtype", "float32")
    done = invoke(*words, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["prompts"] == 60
    assert document["tokens"] == sum(map(len, usual))
    assert invoke(*words).code == 2
    assert "60 prompts" in invoke(*words, "--force").out
    same = write(tmp_path / "same.jsonl", usual[10:40])
    done = invoke("monitor", "check", model, out, same)
    assert done.code == 0, done.err
    assert done.out.split()[:3] == ["signal", "expected", "found"]
    assert "yes" not in done.out
    other = write(tmp_path / "other.jsonl", [f"def f{i}(x): return [x]" for i in range(30)])
    done = invoke("monitor", "check", model, out, other, "--json")
    assert done.code == 1
    assert json.loads(done.out)["drifted"] is True


@pytest.mark.parametrize(
    "words",
    [
        ("check", "{model}", "nowhere.json", "nowhere.jsonl"),
        ("check", "{model}", "nowhere.json", "nowhere.jsonl", "--alpha", "2"),
        ("reference", "{model}", "nowhere.jsonl", "out.json"),
    ],
)
def test_mistakes_end_with_code_2(invoke, model, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("monitor", *(word.format(model=model) for word in words)).code == 2
    assert invoke("serve", model, "--monitor", "nowhere.json", "--port", "0").code == 2
