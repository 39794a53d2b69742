"""The comparison with Data-Juicer runs, as a check without it; its table says what was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from benchmarks.data.compare_datajuicer import Pair, judge, odd_texts, ours
from benchmarks.data.datajuicer_section import datajuicer_equality


@pytest.mark.nightly
def test_a_quick_comparison_runs(repository, tmp_path):
    hidden = ("BENCH_CORPORA", "BENCH_PEERS_PYTHON")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    out = tmp_path / "out.json"
    line = [sys.executable, "-m", "benchmarks.data.compare_datajuicer", "--quick"]
    subprocess.run(
        [*line, "--json", str(out)], cwd=repository, env=environment, check=True, timeout=60
    )
    document = json.loads(out.read_text())
    assert document["benchmark"] == "data_datajuicer_equality"
    assert len(document["results"]["rows"]) > 30


def test_what_differs_is_counted_and_explained():
    texts = ["ab", "abc", "x y", *odd_texts()[:5]]
    pair = Pair(peer="text_length_filter", ours="text_length", reason="by ones")
    mine = ours(pair, texts)
    theirs = {
        "values": [len(text) + (len(text) == 3) for text in texts],
        "kept": mine["kept"],
        "cpu_s": 1.0,
    }
    row = judge(pair, texts, mine, theirs)
    assert (row["equal"], row["explained"], row["unexplained"]) == (len(texts) - 2, 2, 0)
    strict = Pair(
        peer="text_length_filter",
        ours="text_length",
        reason="of spaces",
        explained=lambda text, ours, theirs: " " in text,
    )
    row = judge(strict, texts, mine, theirs)
    assert (row["explained"], row["unexplained"]) == (1, 1)
    assert row["example"]["text"] == "abc"
    assert row["other_fates"] == 0
    config = {"texts": 3, "odd_texts": 5, "characters": 10}
    versions = {"py-data-juicer": "1.6.1", "datatrove": "0.10.1"}
    results = {"rows": [row], "versions": versions}
    page = datajuicer_equality({"config": config, "results": results}, "there")
    assert f"| {len(texts) - 2} of {len(texts)} | 2: of spaces (1 not explained) |" in page
