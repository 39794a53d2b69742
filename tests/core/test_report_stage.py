import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sharpen.core import stage as stage_module
from sharpen.core.errors import ConfigError
from sharpen.core.report import Chart, Section, Table, Text
from sharpen.core.report_stage import plan_section
from sharpen.core.run import run
from sharpen.core.samples import SampleLog, samples_path
from sharpen.core.signals import Panel, Remark
from sharpen.core.stage import Prediction, StageContext, StageResult, StageType, register

LOSSES = [3.0, 2.5, math.nan, 2.0]
HOSTILE = "<script>alert('x')</script> & </pre><img src=http://evil.example/x.png>"


@dataclass(frozen=True, kw_only=True, slots=True)
class NoConfig:
    pass


def learn(config: NoConfig, context: StageContext) -> StageResult:
    for step, loss in enumerate(LOSSES, start=1):
        context.metric("loss", loss, step)
        context.metric("lr", 1e-3, step)
        context.metric("gap", step / 10, step)
    if context.run_folder is not None:
        samples = SampleLog(samples_path(context.run_folder, context.stage))
        samples.rewind(0)
        for step in range(20):
            row = {"step": step, "prompt": f"{HOSTILE} \x1b {step}", "completion": "c" * 10_000}
            samples.append({**row, "reward": step / 2})
    (context.output / "weights").write_text("w")
    return StageResult(
        results={"answer": HOSTILE},
        measured={"step_s": 2.0, "peak_bytes": 3 << 30, "time_s": 8.0},
    )


def told(summary: dict[str, Any]) -> list[Section]:
    return [Section("What it said", [Text(summary["answer"], preformatted=True)])]


@pytest.fixture(autouse=True)
def _types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_registered", {})
    prediction = Prediction(peak_bytes=6 << 30, step_s=1.0)
    register(
        StageType(
            name="learn",
            version=1,
            config=NoConfig,
            run=learn,
            makes="model",
            predict=lambda config, context: prediction,
            report=told,
            panels=(
                Panel(title="Gaps", unit="nats", lines={"gap": "of two", "none": "never logged"}),
                Panel(title="Nothing", unit="nats", lines={"none": "never logged"}),
            ),
            check=lambda curves: [Remark(signal="gap", text=f"ends at {curves['gap'].last(1)}")],
        )
    )


def made(folder: Path, report: Mapping[str, Any] | None = None) -> str:
    recipe = {"sharpen": 1, "name": "plain", "learn": {}, "report": dict(report or {})}
    done = run(recipe, output=folder, force=True)
    assert done.summary["plan.learn.step_s"] == 1.0
    return done.report.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Addresses that the page would load, its headings and its table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v]

    def handle_data(self, data: str) -> None:
        if self.tags and data.strip():
            self.text.setdefault(self.tags[-1], []).append(data.strip())


def body(page: str) -> str:
    return page[page.rindex("<body") :]


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = made(tmp_path)
    assert [a for a in Page(page).addresses if not a.startswith(("data:", "#"))] == []
    assert re.search(r"@import|url\(\s*['\"]?http", page[: page.index("<script")]) is None


def test_predicted_stands_beside_measured_with_the_error(tmp_path: Path) -> None:
    cells = Page(body(made(tmp_path))).text["td"]
    start = cells.index("peak memory, GiB")
    assert cells[start - 1 : start + 4] == ["learn", "peak memory, GiB", "6", "3", "+100%"]
    start = cells.index("seconds a step")
    assert cells[start : start + 4] == ["seconds a step", "1", "2", "-50%"]


def test_curves_are_drawn_over_steps_with_gaps_where_values_are_not_finite(tmp_path: Path) -> None:
    text = body(made(tmp_path))
    assert "learn: curves" in text
    assert "nats per label" in text
    drawn = [json.loads(m) for m in re.findall(r'"y": (\[[^\]]*\])', text)]
    assert [3.0, 2.5, None, 2.0] in drawn
    assert "learn: lr" not in text
    assert "learn: lr" in body(made(tmp_path, {"charts": ["loss", "lr"], "title": "T & t"}))
    assert "T &amp; t" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_a_stage_says_is_escaped(tmp_path: Path) -> None:
    text = body(made(tmp_path))
    assert HOSTILE not in text
    page = Page(text)
    assert "img" not in page.tags
    assert "&lt;script&gt;alert(" in text
    assert "Run plain" in text
    assert "learn 8.0 s" in text


def test_signals_are_drawn_in_panels_and_remarked_on(tmp_path: Path) -> None:
    page = body(made(tmp_path))
    assert '"title": {"text": "Gaps"}' in page
    assert '"text": "nats"' in page
    assert '"name": "of two"' in page
    assert "never logged" not in page
    assert "Nothing" not in page
    cells = Page(page).text["td"]
    assert cells[cells.index("gap") + 1] == "ends at 0.4"


def test_samples_of_the_first_the_middle_and_the_last_step_are_shown(tmp_path: Path) -> None:
    page = body(made(tmp_path))
    cells = Page(page).text["td"]
    start = cells.index("0")
    assert cells[start : start + 3] == ["0", "0", f"{HOSTILE} ␛ 0"]
    assert cells[start + 4 : start + 6] == ["10", "5"]
    assert cells[start + 8 : start + 10] == ["19", "9.5"]
    assert "ccc" in cells[start + 3]
    assert len(cells[start + 3]) < 2100
    assert "learn: samples" not in body(made(tmp_path, {"samples": 0}))
    with pytest.raises(ConfigError, match="samples=1"):
        made(tmp_path, {"samples": 1})


@pytest.mark.parametrize("content", [None, b"", b'{"step": 1, "pro', b"\xff\n[]\n"])
def test_missing_or_damaged_samples_are_no_trouble(tmp_path: Path, content: bytes | None) -> None:
    made(tmp_path)
    path = tmp_path / "samples-learn.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert "learn: samples" not in body(made(tmp_path))  # the stage itself is not run again


def test_a_stage_without_measurements_has_a_row_without_error() -> None:
    section = plan_section({"s": Prediction(peak_bytes=1 << 30, time_s=4.0)}, {})
    table, *charts = section.blocks
    assert isinstance(table, Table)
    assert [list(row) for row in table.rows] == [
        ["s", "peak memory, GiB", 1.0, None, "–"],
        ["s", "seconds", 4.0, None, "–"],
    ]
    assert not any(isinstance(c, Chart) for c in charts)
