"""Pairs of questions and answers that a text marks."""

from __future__ import annotations

import json

from data.texts import make_batch
from sharpen.data import Dataset, ops


def pairs(text, **more):
    found = ops.extract_qa(**more).annotate(make_batch([text]))["qa"][0]
    return [(pair["question"], pair["answer"]) for pair in found]


def test_pairs_are_read():
    text = "Intro\nQ1: Why\nnot?\nA1: Because.\nIt is so.\n\n"
    text += "Question: left alone\nQ: Who? \nAnswer： He."
    assert pairs(text) == [("Why\nnot?", "Because.\nIt is so."), ("Who?", "He.")]
    assert pairs("Human: hi\nAssistant: hello\nA: again") == [("hi", "hello")]
    assert pairs("no pairs, not even Q: here") == pairs("") == pairs("A: alone\nQ: open") == []
    assert pairs("F: was?\nB: das", question="F: ", answer="B: ") == [("was?", "das")]


def test_pairs_become_a_field(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Q: a?\nA: b"}) + "\n")
    Dataset.read(tmp_path / "a.jsonl").apply(ops.extract_qa(field="made.qa")).write(
        tmp_path / "out"
    )
    row = json.loads((tmp_path / "out/data-00000.jsonl").read_text())
    assert row["made"]["qa"] == [{"question": "a?", "answer": "b"}]
