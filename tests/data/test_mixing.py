"""Mixed sources: the shares of the weights at every row, names, draws, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.config import from_dict
from sharpen.core.errors import ConfigError, DataError
from sharpen.data.config import DataConfig
from sharpen.data.mixing import open_rows, turns
from sharpen.data.process import load_data_recipe


def write(path: Path, count: int, **more: object) -> Path:
    lines = [json.dumps({"text": f"{path.stem} {i}", **more}) + "\n" for i in range(count)]
    path.write_text("".join(lines))
    return path


def recipe(folder: Path, source: dict, **more: object) -> dict:
    output = {"path": str(folder / "out")}
    return {"sharpen": 1, "data": {"source": source, "output": output, **more}}


def rows_of(folder: Path) -> list[dict]:
    files = sorted(folder.glob("data-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 400))
def test_every_beginning_has_the_shares_of_the_weights(weights: list[float], n: int) -> None:
    """|n_i - n p_i| <= (1 + m p_i) / 2, as the module says."""
    counts = Counter(itertools.islice(turns(weights), n))
    for i, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[i] - n * share) <= (1 + len(weights) * share) / 2 + 1e-6


def test_rows_are_mixed_by_weights_and_end_where_one_source_is_out(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 4000), write(tmp_path / "b.jsonl", 900)
    mix = [{"path": str(a), "weight": 3}, {"path": str(b), "weight": 1, "name": "books"}]
    result = load_data_recipe(recipe(tmp_path, {"mix": mix})).run()
    found = rows_of(result.output)
    counts = Counter(row["source"] for row in found)
    assert counts["books"] == 900
    assert abs(counts["a.jsonl"] - 2700) <= 2
    for n in (10, 777, 2049):  # in the order of times, across batches
        assert abs(Counter(r["source"] for r in found[:n])["books"] - n / 4) <= 1
    texts = [row["text"] for row in found if row["source"] == "books"]
    assert texts == [f"b {i}" for i in range(900)]
    assert result.rows_in == len(found)
    again = load_data_recipe(recipe(tmp_path, {"mix": mix})).run(tmp_path / "again", workers=1)
    assert again.sha256 == result.sha256
    heavier = load_data_recipe(recipe(tmp_path, {"mix": mix}), ["data.source.mix.0.weight=4"])
    other = heavier.run(tmp_path / "other")
    assert other.sha256 != result.sha256


def test_an_interrupted_mix_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 9000), write(tmp_path / "b.jsonl", 9000)
    mix = [
        {"path": str(a), "weight": 2},
        {"path": str(b), "weight": 1, "max_samples": 4000, "seed": 5},
    ]
    given = recipe(tmp_path, {"mix": mix}, process=[{"text_length": {"min": 4}}])
    whole = load_data_recipe(given).run(tmp_path / "whole")

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data_recipe(given).run(tmp_path / "out", workers=1, on_rows=stop)
    parts = [*(tmp_path / "out.work").rglob("0*.json")]
    assert 0 < len(parts) < 7
    result = load_data_recipe(given).run(tmp_path / "out")
    assert (result.sha256, result.rows_in) == (whole.sha256, whole.rows_in)


def test_without_weights_sources_follow_each_other(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 3), write(tmp_path / "b.jsonl", 2)
    source = {"mix": [{"path": str(b)}, {"path": str(a)}], "column": "from"}
    result = load_data_recipe(recipe(tmp_path, source)).run()
    found = [(row["from"], row["text"]) for row in rows_of(result.output)]
    assert [name for name, _ in found] == ["b.jsonl"] * 2 + ["a.jsonl"] * 3
    limited = load_data_recipe(recipe(tmp_path, source, limit=3)).run(tmp_path / "limited")
    assert limited.rows_in == 3


def test_texts_come_out_under_one_key(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": {"body": "one"}, "n": 1}\n')
    (tmp_path / "b.jsonl").write_text(
        '{"text": "two"}\n{"content": "x"}\n{"text": "three", "source": "mine"}\n'
    )
    a = {"path": str(tmp_path / "a.jsonl"), "text_key": "content.body"}
    b = {"path": str(tmp_path / "b.jsonl")}
    result = load_data_recipe(recipe(tmp_path, {"mix": [a, b]}, on_error="skip")).run()
    assert rows_of(result.output) == [
        {"content": {}, "n": 1, "text": "one", "source": "a.jsonl"},
        {"text": "two", "source": "b.jsonl"},
    ]
    missing, taken = result.why(2)[0]["reason"], result.why(3)[0]["reason"]
    assert missing.startswith(f"{tmp_path / 'b.jsonl'}:2: the key 'text' is missing")
    assert "b.jsonl:3: there is a field 'source' already; name another" in taken


def test_a_draw_is_of_so_many_rows_and_of_its_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 500)

    def drawn(**options: int) -> list[str]:
        config = from_dict(DataConfig, {"source": {"path": str(path), **options}}).source
        return [row["text"] for _, row, _, _ in open_rows(config, None).located()]

    every = [f"a {i}" for i in range(500)]
    assert drawn(max_samples=7) == every[:7]
    assert drawn(max_samples=900) == drawn(max_samples=900, seed=3) == every
    one = drawn(max_samples=50, seed=1)
    assert one == drawn(max_samples=50, seed=1) != drawn(max_samples=50, seed=2)
    assert len(set(one)) == 50
    assert [text for text in every if text in one] == one  # the order is kept
    places = [every.index(t) for seed in range(60) for t in drawn(max_samples=50, seed=seed)]
    halves = sum(place < 250 for place in places)
    assert abs(halves - 1500) < 4 * (3000 / 4 * 0.9) ** 0.5  # hypergeometric, four deviations


def test_rows_that_cannot_be_read_take_no_turn(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", 40)
    bad = ["{broken\n" if i % 2 else json.dumps({"text": f"b {i}"}) + "\n" for i in range(80)]
    (tmp_path / "b.jsonl").write_text("".join(bad))
    mix = [{"path": str(a), "weight": 1}, {"path": str(tmp_path / "b.jsonl"), "weight": 1}]
    result = load_data_recipe(recipe(tmp_path, {"mix": mix}, on_error="skip")).run()
    assert Counter(r["source"] for r in rows_of(result.output)) == {"a.jsonl": 40, "b.jsonl": 40}
    assert result.operators["read"].dropped == result.rows_in - 80 == 39
    with pytest.raises(DataError, match=r"(?s)b\.jsonl:2: .*on_error=skip.*b\.jsonl:10: "):
        load_data_recipe(recipe(tmp_path, {"mix": mix})).run(tmp_path / "strict")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"path": "a", "mix": [{"path": "b"}]}, "exactly one of path, asset and mix"),
        ({"mix": [{"path": "a", "weight": 1}, {"path": "b"}]}, "every source of the mix a weight"),
        ({"mix": [{"path": "a", "weight": 0}]}, r"weight=0 must be above 0"),
        ({"mix": [{"path": "x/a"}, {"path": "y/a"}]}, "two sources of the mix are 'a'"),
        ({"mix": [{"mix": [{"path": "a"}]}]}, "no mix inside"),
        ({"mix": [{"path": "a"}], "max_samples": 3}, "of all: data.limit"),
        ({"path": "a", "max_samples": 0}, "max_samples=0"),
        ({"path": "a", "seed": 1}, "give max_samples"),
        ({"path": "a", "weight": 1}, "belong to a source of a mix"),
        ({"mix": [{"pth": "a"}]}, "unknown key 'pth'.*Did you mean 'path'"),
    ],
)
def test_wrong_mixes_are_refused(source: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        from_dict(DataConfig, {"source": source})
