import json

import pytest

from small_models import save_small_model

SENTENCE = "the quick brown fox jumps over the lazy dog and on "


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locret")
    save_small_model(folder / "m", max_positions=512)
    turns = [
        [
            {"role": "user", "content": f"{i} {SENTENCE * 2}"},
            {"role": "assistant", "content": f"fox {i}"},
        ]
        for i in range(4)
    ]
    rows = "".join(json.dumps({"messages": turn}) + "\n" for turn in turns)
    (folder / "chats.jsonl").write_text(rows)
    return folder


def train(invoke, made, out, *more):
    return invoke(
        "compress", "locret", "train", "--model", made / "m", "--data", made / "chats.jsonl",
        "--out", out, "--steps", 6, "--hidden", 8, *more,
    )  # fmt: skip


def test_train_and_eval(invoke, made, tmp_path):
    done = train(invoke, made, tmp_path / "heads", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["texts"], document["steps"]) == (4, 6)
    assert document["loss"] > 0
    assert sorted(p.name for p in (tmp_path / "heads").iterdir()) == [
        "locret_heads.json",
        "locret_heads.safetensors",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["heads"]
    words = (
        "compress", "locret", "eval", "--model", made / "m", "--heads", tmp_path / "heads",
        "--data", made / "chats.jsonl", "--limit", 1,
    )  # fmt: skip
    done = invoke(*words, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    policies = document["policies"]
    assert list(policies) == ["full", "locret", "window", "sinks", "h2o", "snapkv", "knorm"]
    assert policies["full"]["kept"] == 1
    assert all(p["kept"] < 0.3 for name, p in policies.items() if name != "full")
    assert len({p["nats"] for p in policies.values()}) > 4
    done = invoke(*words, "--budget", 1000, "--json")
    nats = {one["nats"] for one in json.loads(done.out)["policies"].values()}
    assert len(nats) == 1
    assert "perplexity" in invoke(*words).out


def test_an_existing_folder_is_replaced_only_by_force(invoke, made, tmp_path):
    assert train(invoke, made, tmp_path / "heads").code == 0
    refused = train(invoke, made, tmp_path / "heads")
    assert refused.code == 2
    assert "--force" in refused.err
    assert train(invoke, made, tmp_path / "heads", "--force").code == 0
    refused = train(invoke, made, made / "m", "--force")
    assert refused.code == 2
    assert "no retaining heads" in refused.err


def test_rows_without_prompts_are_told(invoke, made, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n')
    done = invoke(
        "compress", "locret", "train", "--model", made / "m", "--data", tmp_path / "bad.jsonl",
        "--out", tmp_path / "heads",
    )  # fmt: skip
    assert done.code == 2
    assert "no key is messages" in done.err


def test_heads_of_another_model_are_refused(invoke, made, tmp_path):
    train(invoke, made, tmp_path / "heads")
    about = tmp_path / "heads" / "locret_heads.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "model": "0" * 32}))
    done = invoke(
        "compress", "locret", "eval", "--model", made / "m", "--heads", tmp_path / "heads",
        "--data", made / "chats.jsonl",
    )  # fmt: skip
    assert done.code == 2
    assert "another model" in done.err
