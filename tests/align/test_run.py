"""Every method as a recipe: what it writes, resuming, refusing."""

import json
import shutil

import pytest
import torch

from align_stage import REWARD, ROWS, Stage
from serving import running
from sharpen.align import align
from sharpen.align.methods import METHODS
from sharpen.align.score_model import load_score_model
from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.core.samples import SampleLog, samples_path
from sharpen.models import load_adapter, load_model
from small_models import save_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, rows in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{kind}.jsonl").write_text(text)
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def config(method, **changes):
    found = METHODS[method]
    own = {"method": method, "data": f"{found.kind}.jsonl", "steps": 3, "batch": 4, "lr": 1e-3}
    if found.online:
        own["reward"] = {"uses": "reward.py:even", "workers": 0}
        own["sampling"] = {"max_tokens": 8}
    return {**own, **changes}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_changes_the_model_and_writes_it(method, model, folder):
    done = Stage(model, folder, **config(method))
    assert done.result.results["steps"] == 3 * (4 if method == "ppo" else 1)
    assert done.result.results["skipped_steps"] == 0
    assert {"loss", "grad_norm", "lr"} <= done.metrics.keys()
    if METHODS[method].online:
        told = {"reward", "reward_std", "length", "truncated", "entropy", "engine_gap"}
        assert told <= done.metrics.keys()
        assert max(done.metrics["engine_gap"]) < 1e-4
        samples = (done.folder / "samples-align.jsonl").read_text().splitlines()
        assert len(samples) == 3 * 2
    if method == "rm":
        assert bool(load_score_model(done.output).score.weight.any())
        return
    before, after = load_model(model), load_model(done.output)
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["dpo", "kto", "ppo", "grpo"])
def test_adapters_are_trained_and_written(method, model, folder):
    done = Stage(model, folder, **config(method, tune="lora", rank=2))
    adapted = load_model(model)
    load_adapter(adapted, done.output)
    written = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert any(bool(p.any()) for p in written)


RESUMED = [
    ("sft", {}),
    ("dpo", {}),
    ("kto", {"tune": "lora", "rank": 2}),
    ("rrhf", {}),
    ("remax", {"options": {"baseline": "ema"}}),
    ("grpo", {"options": {"beta": 0.1}, "tune": "lora", "rank": 2}),
    (
        "ppo",
        {
            "options": {"kl_target": 1.0},
            "generations": 2,
            "epochs_per_batch": 2,
            "minibatches": 2,
        },
    ),
]


@pytest.mark.parametrize(("method", "changes"), RESUMED)
def test_a_run_that_was_stopped_anywhere_ends_in_the_same_bits(method, changes, model, folder):
    own = config(method, steps=4, checkpoint={"every": 1, "async_": False}, **changes)
    whole = Stage(model, folder / "whole", **own)
    steps = whole.result.results["steps"]
    for stop in range(1, steps + 1, 1 if steps < 9 else 3):
        with pytest.raises(KeyboardInterrupt):
            Stage(model, folder / "parts", stop_at=stop, **own)
        assert not list((folder / "parts" / "out").iterdir())
    again = Stage(model, folder / "parts", **own)
    assert again.weights == whole.weights
    assert again.result.results["loss_last"] == whole.result.results["loss_last"]
    if METHODS[method].online:  # no sample twice, and none of a batch that was thrown away
        read = [SampleLog(samples_path(one.folder, "align")) for one in (again, whole)]
        assert read[0].path.read_bytes() == read[1].path.read_bytes()
        updates = steps // 4
        assert read[0].steps() == [1 + updates * batch for batch in range(4)]


def test_samples_of_an_earlier_run_in_the_folder_go(model, folder):
    Stage(model, folder, **config("rloo"))
    (folder / "out" / "model.safetensors").unlink()
    log = SampleLog(samples_path(folder / "run", "align"))
    before = log.path.read_bytes()
    shutil.rmtree(folder / "work")
    Stage(model, folder, **config("rloo"))
    assert log.path.read_bytes() == before
    shutil.rmtree(folder / "work")
    Stage(model, folder, **config("rloo", samples=0))
    assert not log.path.exists()


@pytest.mark.parametrize("count", [1, 5])
def test_as_many_samples_of_a_step_are_kept_as_are_asked_for(count, model, folder):
    Stage(model, folder, **config("rloo", samples=count))
    log = SampleLog(samples_path(folder / "run", "align"))
    assert [len(log.at(step)) for step in log.steps()] == [count] * 3


def test_times_of_a_batch_are_told_in_parts(model, folder):
    done = Stage(model, folder, **config("ppo", epochs_per_batch=2, minibatches=2))
    parts = {name: done.metrics[f"{name}_s"] for name in ("generate", "score", "learn")}
    assert {name: len(values) for name, values in parts.items()} == dict.fromkeys(parts, 3)
    assert all(value > 0 for values in parts.values() for value in values)
    assert "learn_s" not in Stage(model, folder / "rows", **config("dpo")).metrics


def test_another_configuration_does_not_go_on_from_a_checkpoint(model, folder):
    own = config("dpo", checkpoint={"every": 1})
    with pytest.raises(KeyboardInterrupt):
        Stage(model, folder, stop_at=2, **own)
    for change in ({"options": {"beta": 0.3}}, {"method": "ipo"}, {"batch": 2}):
        with pytest.raises(ConfigError, match="another configuration"):
            Stage(model, folder, **{**own, **change})
    Stage(model, folder, **{**own, "micro_batch": 1})


def test_micro_batches_make_no_difference(model, folder):
    for method in ("sft", "dpo", "kto", "orpo", "grpo", "ppo"):
        found = []
        for size in (1, 4):
            own = config(method, micro_batch=size, steps=2, optimizer="sgd", lr=1.0)
            done = Stage(model, folder / f"{method}{size}", **own)
            found.append((load_model(done.output), done.metrics["loss"]))
        (one, losses), (four, others) = found
        assert losses == pytest.approx(others, rel=1e-4, abs=1e-6)
        for a, b in zip(one.parameters(), four.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_the_trained_model_itself_generates_the_same(model, folder):
    served = Stage(model, folder / "a", **config("grpo"))
    plain = Stage(model, folder / "b", **config("grpo", engine="model"))
    assert served.weights == plain.weights


def rewards(folder, text):
    (folder / "odd.py").write_text(text)
    return {"uses": "odd.py:odd", "workers": 1, "deadline_s": 1.0}


def test_rewards_that_hang_fail_or_are_no_numbers_drop_their_completions(model, folder):
    text = (
        "import os, time\n"
        "def odd(prompts, completions, meta):\n"
        "    kind = meta[0]['answer'] % 6\n"
        "    if kind == 0: return [None]\n"
        "    if kind == 1: return [float('nan')]\n"
        "    if kind == 2: raise ValueError('bad')\n"
        "    if kind == 3: time.sleep(60)\n"
        "    if kind == 4: os._exit(1)\n"
        "    return [len(completions[0]) / 8]\n"
    )
    own = config("grpo", steps=1, batch=6, generations=2, reward=rewards(folder, text))
    done = Stage(model, folder, **own)
    assert done.metrics["dropped"] == [pytest.approx(10 / 12)]
    missing = done.result.measured["rewards"]["missing"]
    assert missing == {
        "dropped": 2,
        "not finite": 2,
        "raised": 2,
        "deadline": 2,
        "crashed": 2,
    }


def test_no_reward_at_all_is_an_error(model, folder):
    text = "def odd(prompts, completions, meta):\n    return [None] * len(completions)\n"
    with pytest.raises(ExecutionError, match=r"none of the 32 completions .*: dropped \(32\)"):
        Stage(model, folder, **config("grpo", reward=rewards(folder, text)))


def test_groups_without_variance_teach_nothing_and_are_counted(model, folder):
    text = "def odd(prompts, completions, meta):\n    return [0.5] * len(completions)\n"
    own = config("grpo", reward=rewards(folder, text), weight_decay=0.0)
    done = Stage(model, folder, **own)
    assert done.metrics["zero_std"] == [1.0] * 3
    before, after = load_model(model), load_model(done.output)
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "dpo", "reward": {"uses": "number"}}, "leave reward out"),
        ({"method": "grpo", "reward": None}, "need a reward"),
        ({"method": "grpo", "generations": 1}, "at least 2"),
        ({"method": "dpo", "options": {"bta": 1}}, "options of dpo.*bta"),
        ({"method": "ipo", "options": {"kind": "hinge"}}, "decides"),
        ({"method": "dpo", "micro_batch": 3}, "micro_batch=3 does not divide"),
        ({"method": "grpo", "sampling": {"max_tokens": 255}}, "no room"),
        ({"method": "grpo", "minibatches": 33}, "minibatches=33"),
        ({"method": "dpo", "steps": 1, "epochs": 1}, "not both"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(changes, told, model, folder):
    own = config(changes["method"])
    with pytest.raises(ConfigError, match=told):
        Stage(model, folder, **{k: v for k, v in {**own, **changes}.items() if v is not None})


def test_bad_rows_are_named_or_counted(model, folder):
    with (folder / "preference.jsonl").open("a") as file:
        file.write('{"prompt": "x", "chosen": "y"}\nnot json\n')
    with pytest.raises(DataError, match=r"preference\.jsonl:7: .*rejected"):
        Stage(model, folder, **config("dpo"))
    done = Stage(model, folder, **config("dpo", skip_bad=True))
    assert done.result.results["rows"] == 6
    assert sum(done.result.results["dropped"].values()) == 2


def test_a_reference_of_another_vocabulary_is_refused(model, folder):
    other = save_small_model(folder / "other", vocab_size=400)
    for method in ("dpo", "kto", "ppo"):
        with pytest.raises(ConfigError, match="vocabulary of 400"):
            Stage(model, folder, **config(method, reference=str(other)))
    same = save_small_model(folder / "same", seed=5)
    done = Stage(model, folder, **config("dpo", reference=str(same)))
    assert done.metrics["loss"][0] != pytest.approx(0.6931, abs=1e-4)


@pytest.mark.slow
def test_a_method_is_a_function_too(model, folder):
    done = align(
        "grpo",
        model,
        "prompt.jsonl",
        reward="reward.py:even",
        settings={"steps": 2, "batch": 4, "sampling.max_tokens": 8, "lr": 1e-3},
    )
    assert [step for step, _ in done.history["reward"]] == [1, 2]
    assert done.summary["steps"] == 2
    assert load_model(done.model).spec.num_layers == 2


def test_a_server_generates_for_a_training_of_adapters(model, folder):
    with running(model, allow_runtime_lora=True) as server:
        own = config("grpo", tune="lora", rank=2, engine=f"{server.url}/v1")
        done = Stage(model, folder, **own)
    assert done.result.results["steps"] == 3
    assert not (done.work / "exchange" / "policy-0").exists()
