"""The page of operators is up to date, and every example on it runs."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data.texts import make_batch
from sharpen.core.config import parse_yaml
from sharpen.data import Dataset, ops
from sharpen.data.ops.catalogue import EXAMPLES, example, markdown
from sharpen.data.process import operators_of
from sharpen.data.steps import apply_operators
from sharpen.data.trace import Trace

# Their files are made elsewhere.
OF_MODELS = ("image_onnx_classifier", "perplexity", "quality_score")
ROWS = [
    {
        "text": f"Row {i} says: the boats went out, and none of them came back that night.",
        "path": f"a/{i}.md",
        "url": f"https://host{i}.example.net/page",
        "question": "Where?",
        "answer": "There.",
        "stars": i,
        "meta": {"domain": f"host{i % 2}", "language": "en"},
    }
    for i in range(6)
]
REPLIES = """\
- {match: ^Give the text below a score, reply: '{"score": 4}'}
- {match: Labels, reply: '{"label": "fiction"}'}
- {match: ^Rewrite, reply: '{"text": "The boats never came back."}'}
- match: ^Write one question
  reply: '{"questions": [{"question": "What went out?", "answer": "The boats."}]}'
"""


def test_the_page_is_up_to_date(repository):
    page = (repository / "docs/data/operators.md").read_text(encoding="utf-8")
    assert page == markdown(), "python -m sharpen.data.ops.catalogue > docs/data/operators.md"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with the files that examples name."""
    monkeypatch.chdir(tmp_path)
    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer").mkdir()
    backend.save("tokenizer/tokenizer.json")
    (tmp_path / "edit.py").write_text("def process(text):\n    return text.title()\n")
    (tmp_path / "tests.jsonl").write_text(json.dumps({"question": "What of it?"}) + "\n")
    (tmp_path / "score.py").write_text("def score(image):\n    return 0.0\n")
    (tmp_path / "tests.jsonl").write_text('{"question": "Where were they?"}\n')
    (tmp_path / "replies.yaml").write_text(REPLIES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_examples_are_of_operators():
    assert set(EXAMPLES) <= set(ops.operator_names())


@pytest.mark.parametrize("name", ops.operator_names())
def test_every_example_runs(work, name):
    step = parse_yaml(example(name)).data
    given = next(iter(step[0].values())) if isinstance(step[0], dict) else {}
    assert given == (json.loads(json.dumps(EXAMPLES.get(name) or {})))
    if name in OF_MODELS:
        known = {field.name for field in dataclasses.fields(ops.operator_type(name))}
        assert set(given) <= known
        return
    if name == "chinese_convert":
        pytest.importorskip("opencc")
    if not EXAMPLES.get(name):
        try:
            ops.make_operator(name, {})
        except ValueError as error:
            pytest.fail(f"{name} needs arguments in EXAMPLES of catalogue.py: {error}")
    (one,) = operators_of(step)
    if isinstance(one, ops.Filter | ops.Mapper | ops.Annotator | ops.Splitter):
        others = [{k: v for k, v in row.items() if k != "text"} for row in ROWS]
        batch = make_batch([row["text"] for row in ROWS], others)
        _, (tally,) = apply_operators(batch, [one], [name], Trace())
        assert (tally.rows_in, tally.failed) == (len(ROWS), 0)
    else:
        assert Dataset.read("rows.jsonl").apply(one).write("out").rows_in == len(ROWS)
