"""What a search for a prompt writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharpen.text.prompts.metrics import make_metric
from sharpen.text.prompts.optimize import optimize_prompt
from sharpen.text.prompts.oracle import Oracle
from sharpen.text.prompts.parsers import make_parser
from sharpen.text.prompts.task import PromptProgram


def test_the_report_has_the_program_every_prompt_and_what_changed(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    oracle = Oracle({"steps": 0.2, "short": 0.1, "rhyme": -0.2}, seed=1)
    program = PromptProgram(
        template="{{instruction}}\n\n{{exemplars}}\n\n{{input}}",
        exemplar="{{input}} -> {{output}}",
        parser=make_parser("label", ["yes", "no"]),
    )
    examples = oracle.examples(80)
    found = optimize_prompt(
        program,
        "Answer <yes> or no. (rhyme)",
        examples[20:50],
        make_metric("exact"),
        lm=oracle,
        train=examples[:20],
        test=examples[50:],
        io="gepa",
        eo="mutation",
        budget=8,
        run_dir=tmp_path,
    )
    assert found.improved
    page = (tmp_path / "report.html").read_text()
    body = page[page.rindex("<body>") :]
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert len(history) == len(found.history)
    assert body.count("<svg") == 1
    assert "oracle" in body
    assert "-Answer &lt;yes&gt; or no. (rhyme)" in body
    for row in history:
        assert row["prompt"]["instruction"].split(" (")[1] in body
    assert "<yes>" not in body
