from typing import Any

import pytest
import torch

from sharpen.align.rows import (
    TokenRow,
    label_batch,
    pair_batch,
    rank_batch,
    row_batch,
    tokenize_rows,
)
from sharpen.align.rows.parse import parse_row
from sharpen.core.errors import DataError
from small_models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def rows(*raw: dict[str, Any]) -> list[TokenRow]:
    parsed = [parse_row(one, f"f:{i}") for i, one in enumerate(raw, 1)]
    return tokenize_rows(parsed, TOKENIZER).rows


def text(batch: Any, i: int, mask: str = "attention_mask") -> str:
    return TOKENIZER.decode(batch.input_ids[i][getattr(batch, mask)[i]], skip_special=False)


def test_rows_are_padded_on_the_right_and_completions_are_actions() -> None:
    batch = row_batch(
        rows({"prompt": "ab", "completion": "c"}, {"prompt": "d", "completion": "efgh"}), pad_id=9
    ).validate(TOKENIZER.vocab_size)
    assert [text(batch, i) for i in (0, 1)] == ["abc<|im_end|>", "defgh<|im_end|>"]
    assert [text(batch, i, "action_mask") for i in (0, 1)] == ["c<|im_end|>", "efgh<|im_end|>"]
    assert batch.input_ids[0, -2:].tolist() == [9, 9]


def test_a_first_token_is_no_action() -> None:
    row = rows({"messages": [{"role": "assistant", "content": "yo"}]})[0]
    all_learned = TokenRow(
        row=row.row, prompt=[], completions=row.completions, masks=[[True] * len(row)]
    )
    assert not row_batch([all_learned]).validate().action_mask[0, 0]


def test_pairs_have_the_chosen_first() -> None:
    raw = {"prompt": "a", "chosen": "b", "rejected": "cc", "margin": 2}
    batch = pair_batch(rows(raw, {**raw, "prompt": "z", "margin": 0.5})).validate()
    assert [text(batch, i) for i in range(4)] == [
        f"{t}<|im_end|>" for t in ("ab", "zb", "acc", "zcc")
    ]
    assert len(batch) == 2
    assert batch.margin is not None
    assert batch.margin.tolist() == [2.0, 0.5]
    assert pair_batch(rows({"prompt": "a", "chosen": "b", "rejected": "c"})).margin is None


def test_labels_have_mismatched_twins() -> None:
    labelled = zip("abc", "xyz", (1, 0, 1), strict=True)
    raw = [{"prompt": p, "completion": c, "label": g} for p, c, g in labelled]
    batch = label_batch(rows(*raw)).validate()
    assert [text(batch, i)[:2] for i in range(6)] == ["ax", "by", "cz", "az", "bx", "cy"]
    assert batch.desirable.tolist() == [True, False, True]
    with pytest.raises(DataError, match="at least 2"):
        label_batch(rows(raw[0]))


def test_candidates_of_a_query_stay_together() -> None:
    raw = [
        {"query": "a", "responses": ["x", "yy", "z"], "scores": [1, 2, 3]},
        {"query": "b", "responses": ["p", "q"], "scores": [0, -1]},
    ]
    batch = rank_batch(rows(*raw), first_query=5).validate()
    assert batch.query_id.tolist() == [5, 5, 5, 6, 6]
    assert batch.scores.tolist() == [1, 2, 3, 0, -1]
    assert torch.equal(batch.action_mask.sum(1), torch.tensor([2, 3, 2, 2, 2]))
    assert text(batch.select([1]), 1) == "bq<|im_end|>"


def test_rows_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match="f:1: this batch needs rows of the format 'preference'"):
        pair_batch(rows({"prompt": "a", "completion": "b"}))
    with pytest.raises(DataError, match="at least one row"):
        row_batch([])
    with pytest.raises(DataError, match="'margin' must be a number"):
        pair_batch(rows({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"}))
