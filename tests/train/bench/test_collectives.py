import json
from pathlib import Path

import pytest

from sharpen.core.errors import ConfigError
from sharpen.core.report import write_html
from sharpen.train.bench.collectives import COLLECTIVES, bench_collectives


def test_right_results_of_every_collective_are_timed(tmp_path: Path) -> None:
    times = bench_collectives(2, sizes=[1000, 1 << 16], repeats=3)
    assert [(row.kind, row.bytes) for row in times.rows] == [
        (kind, size) for kind in COLLECTIVES for size in (1000, 1 << 16)
    ]
    for row in times.rows:
        factor = 1.0 if row.kind == "all_reduce" else 0.5
        assert row.gb_s == pytest.approx(factor * row.bytes / row.seconds / 1e9)
    assert "64 KiB" in times.table()
    assert json.loads(json.dumps(times.to_dict()))["world_size"] == 2
    write_html(tmp_path / "collectives.html", "collectives", times.sections())
    assert "Rate by size" in (tmp_path / "collectives.html").read_text()


@pytest.mark.parametrize(("nproc", "sizes"), [(1, [8]), (2, []), (2, [0])])
def test_what_cannot_be_measured_is_refused(nproc: int, sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match="nproc="):
        bench_collectives(nproc, sizes=sizes)
