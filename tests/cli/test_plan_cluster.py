import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.plan.serving.traces import Trace

Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_trace_is_drawn_and_a_cluster_found_for_it(invoke: Invoke) -> None:
    done = invoke("plan", "trace", "--kind", "code", "--rate", 5, "--minutes", 0.5, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(Trace.read(found["path"])) == found["requests"]
    words = [
        *("plan", "cluster", "--trace", found["path"], "--designs", "Baseline-A100,AA"),
        *("--objective", "iso-power", "--budget", "20kW", "--batching", "whole", "--seconds", 10),
    ]
    done = invoke(*words, "--json", "-o", "report.json", "--plot", "rates.png")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document == json.loads(Path("report.json").read_text())
    best, other = document["designs"]
    assert (best["design"], other["design"]) == ("AA", "Baseline-A100")
    assert best["power_kw"] <= 20 and best["prompt_machines"] + best["token_machines"] == 3
    for name, limits in document["slo"].items():
        assert all(a <= b for a, b in zip(best["slowdowns"][name], limits, strict=True))
    assert Path("rates.png").stat().st_size > 1000
    assert "Baseline-A100" in invoke(*words).out


def test_a_rate_is_served_at_the_least_cost(invoke: Invoke) -> None:
    words = [
        *("plan", "cluster", "--trace", "code", "--designs", "AA", "--objective", "min-cost"),
        *("--batching", "whole", "--seconds", 5, "--json"),
    ]
    found = json.loads(invoke(*words, "--budget", 4).out)
    assert found["designs"][0]["rate"] == 4
    # Limits that nothing can meet: exit code 1, and the design is named.
    done = invoke(*words, "--budget", 4, "--slo", "tbt=1/1/1")
    assert done.code == 1
    assert json.loads(done.out)["none_found"] == ["AA"]


def test_any_model_is_planned_by_a_roofline(invoke: Invoke) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    Path("llama3-8b").mkdir()
    Path("llama3-8b/config.json").write_text(json.dumps(config))
    words = ("plan", "cluster", "--model", "llama3-8b", "--trace", "code", "--designs", "HA")
    more = ("--objective", "min-machines", "--budget", 2, "--batching", "whole", "--seconds", 4)
    found = json.loads(invoke(*words, *more, "--json").out)
    assert found["times"] == "roofline"
    assert found["designs"][0]["machines"] == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--budget": "lots"}, "--budget 'lots' is none"),
        ({"--budget": "20"}, "does not fit iso-power"),
        ({"--objective": "iso-cost"}, "does not fit iso-cost"),
        ({"--model": "llama2-7b"}, "Did you mean 'llama2-70b'"),
        ({"--designs": "AB"}, "no design 'AB'"),
        ({"--designs": ","}, "names none"),
        ({"--slo": "ttft=2"}, "'ttft=2' is no limit"),
        ({"--trace": "none.csv"}, "no such trace"),
        ({"--batching": "half"}, "batching='half'"),
        ({"--overlap": "half"}, "overlap='half'"),
        ({"--seconds": "0"}, "--seconds 0"),
    ],
)
def test_bad_questions_are_code_2(invoke: Invoke, changes: dict[str, str], told: str) -> None:
    words = {"--trace": "code", "--objective": "iso-power", "--budget": "20kW", "--seconds": "3"}
    given = [word for pair in (words | changes).items() for word in pair]
    done = invoke("plan", "cluster", *given, "--json")
    assert done.code == 2
    assert told in json.loads(done.out)["error"]["message"]


def test_a_trace_is_not_overwritten(invoke: Invoke) -> None:
    Path("t.csv").write_text("x")
    words = ("plan", "trace", "--kind", "code", "--rate", 1, "-o", "t.csv", "--minutes", 0.1)
    done = invoke(*words, "--json")
    assert done.code == 2
    assert "--force" in json.loads(done.out)["error"]["message"]
    assert invoke(*words, "--force").code == 0
