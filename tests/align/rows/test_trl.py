"""Rows and tokens beside TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.align.rows import pair_batch, row_batch, tokenize_rows
from sharpen.align.rows.parse import parse_row
from sharpen.models.tokenizer import load_tokenizer
from small_models import save_small_model

pytestmark = [
    pytest.mark.peer,
    # Deprecations between the peer, its framework and torch; none is of ours.
    pytest.mark.filterwarnings("ignore"),
]
trl = pytest.importorskip("trl", reason="needs the extra 'peers'")

USER = [{"role": "user", "content": "hi"}]
YES = [{"role": "assistant", "content": "yo"}]
NO = [{"role": "assistant", "content": "no"}]
NEWLINE = 201  # of the small tokenizer, after the end of a turn


@given(
    st.text("ab ", min_size=1, max_size=6).filter(str.strip),
    st.sampled_from("xy"),
    st.text("ab ", max_size=4),
)
def test_a_shared_beginning_is_the_prompt(prompt: str, first: str, rest: str) -> None:
    pair = {"chosen": f"{prompt}{first}{rest}", "rejected": f"{prompt}z{rest}"}
    row = parse_row(pair, "f:1")
    theirs = trl.extract_prompt(pair)
    assert row.prompt == theirs["prompt"]
    assert row.completions == (theirs["chosen"], theirs["rejected"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("peer") / "model")


def peer_row(kind: Any, config: Any, folder: Path, row: dict[str, Any], out: Path) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    trainer = kind(
        str(folder),
        args=config(output_dir=str(out), use_cpu=True, report_to=[], bf16=False),
        train_dataset=Dataset.from_list([row]),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    return trainer.train_dataset[0]


def test_prompts_and_completions(folder: Path, tmp_path: Path) -> None:
    for raw in ({"prompt": "ab", "completion": " c"}, {"prompt": USER, "completion": YES}):
        rows = tokenize_rows([parse_row(raw, "f:1")], load_tokenizer(folder)).rows
        batch = row_batch(rows)
        theirs = peer_row(trl.SFTTrainer, trl.SFTConfig, folder, raw, tmp_path)
        ids, labels = theirs["input_ids"], theirs["labels"]
        if ids[-1] == NEWLINE:  # they learn what follows the end of a turn, too
            ids, labels = ids[:-1], labels[:-1]
        assert batch.input_ids[0].tolist() == ids
        assert batch.action_mask[0].tolist() == [label != -100 for label in labels]


def test_pairs(folder: Path, tmp_path: Path) -> None:
    plain = {"prompt": "ab", "chosen": " c", "rejected": " d"}
    for raw in (plain, {"prompt": USER, "chosen": YES, "rejected": NO}):
        rows = tokenize_rows([parse_row(raw, "f:1")], load_tokenizer(folder)).rows
        batch = pair_batch(rows)
        theirs = peer_row(trl.DPOTrainer, trl.DPOConfig, folder, raw, tmp_path)
        for i, name in enumerate(("chosen_ids", "rejected_ids")):
            answer = theirs[name]
            answer = answer[:-1] if answer[-1] == NEWLINE else answer
            assert batch.input_ids[i].tolist() == theirs["prompt_ids"] + answer
            assert batch.input_ids[i][batch.action_mask[i]].tolist() == answer
