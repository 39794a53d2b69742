"""Candidates ranked by the values of B-Coder."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from align_stage import align
from sharpen.align.losses.bcoder import BCoderConfig
from sharpen.align.ranking import rank_file, rank_programs
from sharpen.align.rows.parse import parse_row
from sharpen.cli.main import main
from sharpen.core.errors import ConfigError
from sharpen.models import load_model
from small_models import byte_tokenizer, save_small_model

ROWS: list[dict[str, Any]] = [
    {"query": f"{word} ", "responses": [word, word[::-1], "x"], "scores": [-0.3, 1, -1]}
    for word in ("ab", "cd", "efg", "gh", "ijklm", "kl")
]
PARSED = [parse_row(row, f"row {i}") for i, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def made(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bcoder") / "run"
    return align(start, folder, ROWS, method="bcoder", steps=4, batch=4, lr=1e-3)


@torch.no_grad()
def expected(made: Path, start: Path, query: str, response: str, gamma: float) -> float:
    """sum_t A(s_t, a_t) + V(s_t) - gamma V(s_{t+1}), token by token from the files."""
    tokenizer, model = byte_tokenizer(), load_model(made)
    head = load_file(made / "value_head.safetensors")

    def raw(part: str, state: Tensor) -> float:
        inner = F.gelu(F.linear(state, head[f"{part}.0.weight"], head[f"{part}.0.bias"]))
        return float(F.linear(inner, head[f"{part}.2.weight"], head[f"{part}.2.bias"]))

    prompt = tokenizer.encode(query)
    ids = [*prompt, *tokenizer.encode(response), int(tokenizer.eos_id or 0)]
    states = model.hidden(torch.tensor([ids]))[0]
    frozen = load_model(start).hidden(torch.tensor([ids]))[0]
    logits = model(torch.tensor([ids]))[0]
    values, total = [], 0.0
    for at in range(len(prompt) - 1, len(ids) - 1):
        x = torch.tensor(
            raw("phi", frozen[at]) + raw("residual", states[at]) - raw("start", states[at])
        )
        softabs = (F.softplus(x) + F.softplus(-x)) / 2 - torch.log(torch.tensor(2.0))
        values.append(1 - float(softabs))
        total += float(logits[at, ids[at + 1]] - logits[at].max()) + values[-1]
    return total - gamma * sum(values[1:])


def test_scores_are_the_rewards_that_values_imply(made: Path, start: Path) -> None:
    for first, gamma in ((start, 0.999), (start, 0.9), (made, 0.999)):
        config = BCoderConfig(gamma=gamma)
        found = rank_programs(made, PARSED, config, start=first)
        if first == made:
            assert rank_programs(made, PARSED, config) == found
        for row, scores in zip(ROWS, found, strict=True):
            for response, score in zip(row["responses"], scores, strict=True):
                told = expected(made, first, str(row["query"]), str(response), gamma)
                assert score == pytest.approx(told, abs=2e-5)


def test_the_command_tells_the_best_first(
    made: Path,
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "ranked.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    line = ["align", "rank", "--model", str(made), "--data", str(data), "--top", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["sharpen", *line])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows == rank_file(made, data, top=2)
    assert len(rows) == len(ROWS)
    for row in rows:
        best = sorted(row["scores"], reverse=True)[:2]
        assert [one["score"] for one in row["top"]] == best
        assert [row["scores"][one["index"]] for one in row["top"]] == best
    assert rows != rank_file(made, data, ["gamma=0.5"], top=2)
    assert rows != rank_file(made, data, top=2, start=start)
    assert rows == rank_file(made, data, top=2, start=made)


def test_adapters_rank_on_their_start_as_merged_into_it(start: Path, tmp_path: Path) -> None:
    own = {"method": "bcoder", "steps": 3, "batch": 4, "lr": 1e-2, "tune": "lora", "rank": 2}
    adapter = align(start, tmp_path / "adapter", ROWS, **own)
    merged = align(start, tmp_path / "merged", ROWS, **own, merge=True)
    found = rank_programs(adapter, PARSED, start=start)
    expected = rank_programs(merged, PARSED, start=start)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    with pytest.raises(ConfigError, match="holds adapters"):
        rank_programs(adapter, PARSED)


def test_a_model_without_values_is_refused(start: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"value_head\.safetensors"):
        rank_programs(start, PARSED)
    other = save_small_model(tmp_path / "other", hidden_size=32, num_heads=2, num_kv_heads=2)
    with pytest.raises(ConfigError, match="32 numbers, not 64"):
        rank_programs(made, PARSED, start=other)
    with pytest.raises(ConfigError, match="gama"):
        rank_file(made, tmp_path, ["gama=1"])
