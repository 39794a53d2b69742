"""Findings follow from times and memory; real short runs fill the cells."""

import json
from pathlib import Path
from typing import Any

import pytest

from plan_profile import pretend
from sharpen.core.errors import (
    ConfigError,
    ExecutionError,
    Interrupted,
    OutOfMemoryError,
    SharpenError,
)
from sharpen.core.report import write_html
from sharpen.train.bench.options import (
    Cell,
    OptionBench,
    bench_options,
    default_cells,
    findings,
)
from small_models import save_small_model

GIB = 1 << 30


def cell(name: str, *step_s: float, peak: float = 1.0, status: str = "ok") -> Cell:
    return Cell(name=name, step_s=list(step_s), peak_bytes=int(peak * GIB), status=status)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (cell("b", 1.0, 0.9), "b pays: 2.11 x as fast."),
        (cell("b", 1.0, 1.0, peak=0.5), "b pays: 2.00 x as fast and saves 512 MiB."),
        (cell("b", 1.0, 1.0, peak=3.5), "b pays: 2.00 x as fast for 2.50 GiB more."),
        (cell("b", 2.5, 2.5, peak=0.4), "b saves 614 MiB for 25% more time."),
        (cell("b", 2.0, 2.0, peak=0.5), "b saves 512 MiB at no cost in time."),
        (cell("b", 3.0, 3.0), "b does not pay: 50% more time."),
        (cell("b", 2.0, 2.0, peak=2.0), "b does not pay: no gain in time, 1.00 GiB more memory."),
        (cell("b", 1.0, 2.1), "b makes no difference beyond noise."),  # faster in one round only
        (cell("b", status="out of memory"), "b: out of memory."),
    ],
)
def test_a_finding_tells_speed_and_memory_in_every_round(other: Cell, expected: str) -> None:
    assert findings(BASE, [other]) == [expected]


BASE = cell("as it is", 2.0, 2.0)


def test_what_pays_most_stands_first() -> None:
    cells = [
        cell("slow", 4.0, 4.0),
        cell("thrifty", 2.5, 2.5, peak=0.5),
        cell("fast", 1.0, 1.0),
        cell("broken", status="failed"),
        cell("faster", 0.5, 0.5),
    ]
    order = [sentence.split(" ")[0].rstrip(":") for sentence in findings(BASE, cells)]
    assert order == ["faster", "fast", "thrifty", "slow", "broken"]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_small_model(tmp_path / "base")
    rows = [{"prompt": f"{i} + 1 =", "completion": str(i + 1)} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "sharpen: 1\nname: demo\nmodel: ./base\n"
        "data: {source: {path: rows.jsonl}, format: prompt_completion, max_tokens: 64}\n"
        "train: {epochs: 1, global_batch: 2, lr: 1.0e-3}\n"
        "eval: {metrics: [loss]}\n"
    )
    pretend(tmp_path, monkeypatch)
    return tmp_path / "recipe.yaml"


def test_the_options_that_matter_are_those_the_recipe_can_take(recipe: Path) -> None:
    names = [c.name for c in default_cells(recipe)]
    assert {"dtype=bfloat16", "act.mode=full", "micro_batch=2", "method=lora"} <= set(names)
    assert not any("nproc" in name for name in names)
    whole = [c.name for c in default_cells(recipe, ["train.micro_batch=2"])]
    assert "micro_batch=1" in whole
    assert "micro_batch=4" not in whole  # more than the step's two sequences
    two = default_cells(recipe, nproc=2)
    assert "nproc=2, parallel.zero_stage=3" in [c.name for c in two]
    sp = next(c for c in two if "sp=2" in c.name)
    assert sp.overrides[1] == "train.parallel.sp=2"


@pytest.mark.slow
def test_short_runs_fill_the_cells_beside_the_plan(recipe: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    times = bench_options(
        recipe,
        ["train.lr=2e-3"],
        cells=[
            Cell(name="lora", overrides=("train.method=lora", "train.rank=4")),
            Cell(name="spoilt", overrides=("train.lr=1e30", "train.max_norm=1e30", BAD)),
        ],
        config=OptionBench(steps=2, rounds=2),
        on_cell=lambda c, number: told.append((c.name, number)),
    )
    # What failed is not run again.
    expected = [("as it is", 0), ("lora", 0), ("spoilt", 0), ("as it is", 1), ("lora", 1)]
    assert told == expected
    base, lora, spoilt = times.cells
    for one in (base, lora):
        assert one.status == "ok" and len(one.step_s) == 2
        assert one.peak_bytes is not None and one.planned_bytes is not None
        assert one.peak_bytes > 0 and one.planned_bytes > 0
        assert one.tokens_per_s is not None and one.tokens_per_s > 0 and one.mfu is not None
    assert spoilt.status == "failed" and "not finite" in spoilt.message and spoilt.step_s == []
    assert len(times.findings) == 2 and times.findings[-1] == "spoilt: failed."
    assert "as it is" in times.table() and "spoilt" in times.table()
    plain: dict[str, Any] = json.loads(json.dumps(times.to_dict()))
    assert plain["cells"][0]["seconds"] > 0
    write_html(tmp_path / "options.html", "options", times.sections())
    assert "Peak memory" in (tmp_path / "options.html").read_text()


BAD = "train.max_bad_steps=1"


def test_a_recipe_that_fails_as_it_is_tells_why(recipe: Path) -> None:
    given = ["train.lr=1e30", "train.max_norm=1e30", BAD, "train.warmup=0"]
    with pytest.raises(ExecutionError, match=r"as it is: failed: .* not finite"):
        bench_options(recipe, given, cells=[], config=OptionBench(steps=3, rounds=1))


@pytest.mark.parametrize("error", [Interrupted, OutOfMemoryError])
def test_what_ends_the_recipe_as_it_is_ends_the_measurement(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, error: type[SharpenError]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("enough")

    monkeypatch.setattr("sharpen.train.bench.options.run", fail)
    with pytest.raises(error, match="enough"):
        bench_options(recipe, cells=[], config=OptionBench(rounds=1))


def test_wrong_cells_and_counts_are_refused_before_any_run(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="stpes"):
        bench_options(recipe, cells=[Cell(name="x", overrides=("train.stpes=1",))])
    with pytest.raises(ConfigError, match="rounds=0"):
        OptionBench(rounds=0)
    text = "sharpen: 1\nname: n\nmodel: ./base\ndata: {source: {path: rows.jsonl}}\n"
    (recipe.parent / "none.yaml").write_text(text)
    with pytest.raises(ConfigError, match="no stage of type 'train'"):
        bench_options(recipe.parent / "none.yaml")
