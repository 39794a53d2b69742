import json
import math
from pathlib import Path

import pytest

from sharpen.core.errors import StorageError
from sharpen.core.metrics import MetricsLog, peak_rss_bytes, read_metrics


def values(path: Path) -> list[tuple[str, str, int | None, float | None]]:
    return [(r["stage"], r["name"], r["step"], r["value"]) for r in read_metrics(path)]


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert read_metrics(log.path) == []
    log.append("train", "loss", 2.5, step=1)
    log.append("eval", "loss", 3.0)
    assert values(log.path) == [("train", "loss", 1, 2.5), ("eval", "loss", None, 3.0)]
    assert all(row["time_s"] > 0 for row in read_metrics(log.path))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_null(tmp_path: Path, value: float) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append("train", "loss", value, step=1)
    assert json.loads(log.path.read_text())["value"] is None


def test_a_torn_or_foreign_row_is_left_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append("train", "loss", 1.0, step=1)
    with log.path.open("ab") as file:
        file.write(b'5\n\xff\n{"a": 1}\n{"stage": "train", "na')
    assert values(log.path) == [("train", "loss", 1, 1.0)]


def test_rewinding_drops_a_stages_rows_past_a_step_and_torn_ones(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.rewind("train")
    assert not log.path.exists()
    for step in (1, 2, 3):
        log.append("train", "loss", float(step), step=step)
    log.append("train", "total", 9.0)
    log.append("data", "rows", 4.0)
    with log.path.open("ab") as file:
        file.write(b'{"stage": "tr')
    log.rewind("train", 2)
    assert [v[2] for v in values(log.path)] == [1, 2, None]
    assert values(log.path)[2] == ("data", "rows", None, 4.0)
    log.append("train", "loss", 3.5, step=3)
    log.rewind("train")
    assert values(log.path) == [("data", "rows", None, 4.0)]


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        MetricsLog(tmp_path / "absent" / "metrics.jsonl").append("a", "b", 1.0)


def test_peak_memory_covers_what_was_allocated() -> None:
    before, block = peak_rss_bytes(), bytearray(64 << 20)
    assert peak_rss_bytes() >= max(before, len(block))
