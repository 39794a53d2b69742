import json

import pytest
from typer.testing import CliRunner

from sharpen.cli.main import build_app
from sharpen.optim.bench.step_cost import contenders, measure_costs, parameter_set


def test_rows_tell_time_states_and_ratio() -> None:
    found = measure_costs(["adamw", "apollo_mini"], seconds=0.0)
    rows = {row.name: row for row in found["rows"]}
    assert list(rows)[:3] == ["adamw", "apollo_mini", "torch AdamW fused"]
    assert set(rows) - set(list(rows)[:3]) <= {"pytorch-optimizer APOLLO-Mini"}
    assert rows["adamw"].state_bytes_per_param == rows["torch AdamW fused"].state_bytes_per_param
    assert rows["adamw"].state_bytes_per_param == 8.0
    # AdamW on embedding and head; two moments of a row each, and the cached vector, elsewhere
    assert 2 < rows["apollo_mini"].state_bytes_per_param < 3
    for row in rows.values():
        assert 0 < row.ns_per_param <= row.median_ns_per_param
    peer = rows["torch AdamW fused"]
    assert rows["adamw"].ratio == pytest.approx(peer.ns_per_param / rows["adamw"].ns_per_param)
    assert peer.ratio is None and rows["adamw"].peer == peer.name


def test_every_method_has_a_contender_and_sets_are_alike() -> None:
    from sharpen.optim import available

    names = [c.name for c in contenders(peers=False)]
    assert names == available()
    a, b = parameter_set("llama"), parameter_set("llama")
    assert sum(p.numel() for p in a) == 6_840_320
    assert all(x.equal(y) and x.grad.equal(y.grad) for x, y in zip(a, b, strict=True))


def test_the_command_prints_one_document() -> None:
    words = ["bench", "optim", "--quick", "--json", "--methods"]
    done = CliRunner().invoke(build_app(words), [*words, "adamw"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    keys = {"name", "ns_per_param", "state_bytes_per_param", "ratio", "peer"}
    assert all(keys <= row.keys() for row in document["rows"]) and len(document["rows"]) == 2
    wrong = CliRunner().invoke(build_app(words), [*words, "muun"])
    assert wrong.exit_code == 2 and "Did you mean 'muon'?" in wrong.stderr
