import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharpen.align.batch import LabelBatch, PairBatch, RankBatch, RolloutBatch, Sequences
from sharpen.core.errors import ConfigError, DataError, FileFormatError, MissingFileError
from sharpen.testing.align import (
    VOCAB,
    label_batch,
    pair_batch,
    rank_batch,
    rollout_batch,
    row_batch,
)

KINDS: list[Callable[..., Sequences]] = [
    row_batch,
    pair_batch,
    label_batch,
    rank_batch,
    rollout_batch,
]


def _made(kind: Callable[..., Any], examples: int, width: int = 8, seed: int = 0) -> Any:
    return kind(examples, width, torch.Generator().manual_seed(seed))


def _equal(a: Sequences, b: Sequences) -> bool:
    for one in fields(a):
        mine, other = getattr(a, one.name), getattr(b, one.name)
        if isinstance(mine, Tensor):
            if mine.dtype != other.dtype or not torch.equal(mine, other):
                return False
        elif mine != other:
            return False
    return type(a) is type(b)


@pytest.mark.parametrize("kind", KINDS)
@given(examples=st.integers(1, 7), width=st.integers(2, 9), seed=st.integers(0, 99), data=st.data())
def test_parts_merge_into_the_whole(
    kind: Callable[..., Sequences], examples: int, width: int, seed: int, data: st.DataObject
) -> None:
    batch = _made(kind, examples, width, seed).validate(VOCAB)
    parts = batch.split(data.draw(st.integers(1, examples)))
    assert sum(len(part) for part in parts) == len(batch) == examples
    for part in parts:
        part.validate(VOCAB)
        assert part.width == int(part.attention_mask.sum(1).max())
    assert _equal(type(batch).merge(parts), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_survives_the_disk(kind: Callable[..., Sequences], tmp_path: Path) -> None:
    batch = _made(kind, 5)
    batch.save(tmp_path / "kept" / "batch.safetensors")
    assert _equal(type(batch).load(tmp_path / "kept" / "batch.safetensors"), batch)
    rows = tmp_path / "kept" / "batch.jsonl"
    assert rows.exists() == isinstance(batch, RolloutBatch)
    if rows.exists():
        first = json.loads(rows.read_text().splitlines()[0])
        assert first["meta"]["name"] == "row 0"


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    _made(rollout_batch, 3).save(path)
    _made(rollout_batch, 4).save(other)
    other.with_suffix(".jsonl").replace(path.with_suffix(".jsonl"))
    with pytest.raises(FileFormatError, match="does not belong"):
        RolloutBatch.load(path)
    with pytest.raises(MissingFileError, match=r"b\.jsonl is missing"):
        RolloutBatch.load(other)
    with pytest.raises(FileFormatError, match="not PairBatch"):
        PairBatch.load(path)
    with pytest.raises(ConfigError, match=r"must end in .safetensors"):
        _made(row_batch, 2).save(tmp_path / "a.pt")
    with pytest.raises(DataError, match="meta of row 1"):
        replace(_made(rollout_batch, 2), meta=[{}, {"x": float("nan")}]).save(path)


def test_pairs_and_queries_stay_together() -> None:
    pairs = _made(pair_batch, 4)
    one = pairs.select([2])
    assert one.num_rows == 2
    torch.testing.assert_close(one.ref_logp, pairs.ref_logp[[2, 6]])
    torch.testing.assert_close(one.margin, pairs.margin[[2]])
    ranks = _made(rank_batch, 5)
    picked = ranks.select([3, 1])
    expected = torch.cat([ranks.scores[ranks.query_index() == i] for i in (3, 1)])
    torch.testing.assert_close(picked.scores, expected)


def _changed(batch: Sequences, name: str, row: int, column: int, value: Any) -> Sequences:
    tensor = getattr(batch, name).clone()
    tensor[(row, column) if tensor.dim() == 2 else row] = value
    return replace(batch, **{name: tensor})


@pytest.mark.parametrize(
    ("name", "row", "column", "value", "message"),
    [
        ("reward", 1, 0, float("nan"), "reward of row 1 is NaN"),
        ("logp_old", 2, 3, float("-inf"), "logp_old of row 2 is NaN or infinite"),
        ("advantage", 0, 0, float("nan"), "advantage of row 0"),
        ("input_ids", 3, 0, VOCAB, "outside the vocabulary of 11"),
        ("input_ids", 3, 0, -1, "negative id"),
        ("attention_mask", 0, 1, False, "attention_mask of row 0 has text after padding"),
        ("action_mask", 2, 0, True, "marks the first token"),
    ],
)
def test_what_is_wrong_in_a_row_is_named(
    name: str, row: int, column: int, value: Any, message: str
) -> None:
    batch = _made(rollout_batch, 4)
    with pytest.raises(DataError, match=message):
        _changed(batch, name, row, column, value).validate(VOCAB)


def test_shapes_and_types_are_checked() -> None:
    batch = _made(rollout_batch, 4)
    for change, message in [
        ({"reward": batch.reward[:3]}, r"reward is \[3\], but must be a tensor of shape \[4\]"),
        ({"reward": None}, "reward is NoneType"),
        ({"reward": batch.reward.half()}, "reward is torch.float16, but must be torch.float32"),
        ({"action_mask": batch.action_mask.long()}, "action_mask is torch.int64"),
        ({"finish_reason": ["stop"]}, "finish_reason has 1 entries"),
        ({"input_ids": batch.input_ids[0]}, "input_ids has shape"),
    ]:
        with pytest.raises(DataError, match=message):
            replace(batch, **change).validate()
    odd = _made(row_batch, 3)
    with pytest.raises(DataError, match="3 rows, but must have two"):
        PairBatch(
            input_ids=odd.input_ids,
            attention_mask=odd.attention_mask,
            action_mask=odd.action_mask,
        ).validate()
    labels: LabelBatch = _made(label_batch, 3)
    with pytest.raises(DataError, match="desirable"):
        replace(labels, desirable=labels.desirable[:2]).validate()


def test_a_query_in_two_places_is_refused() -> None:
    ranks: RankBatch = _made(rank_batch, 3)
    again = RankBatch.merge([ranks, ranks])
    with pytest.raises(DataError, match="query_id 7 is in two places"):
        again.validate()


def test_the_end_of_a_text_is_an_action_iff_it_stopped() -> None:
    """Without it the policy is never taught to stop; after a cut there is none."""
    eos = 9
    ids = torch.tensor([[1, 2, 3, eos], [1, 2, 3, 4]])
    text = torch.ones_like(ids, dtype=torch.bool)
    actions = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1]], dtype=torch.bool)
    base = _made(rollout_batch, 2, 4)
    good = replace(base, input_ids=ids, attention_mask=text, action_mask=actions)
    good = replace(good, finish_reason=["stop", "length"])
    good.validate(eos_ids={eos})
    with pytest.raises(DataError, match="row 1 says it stopped"):
        replace(good, finish_reason=["stop", "stop"]).validate(eos_ids={eos})
    with pytest.raises(DataError, match="row 0 says it was cut off"):
        replace(good, finish_reason=["length", "length"]).validate(eos_ids={eos})
    left_out = actions.clone()
    left_out[0, 3] = False
    with pytest.raises(DataError, match="never learns to stop"):
        replace(good, action_mask=left_out).validate(eos_ids={eos})
    with pytest.raises(DataError, match="row 0 says it stopped"):
        replace(good, action_mask=torch.zeros_like(actions)).validate()
    with pytest.raises(DataError, match="must be a word"):
        replace(good, finish_reason=["", "length"]).validate()


def test_groups_of_another_size_are_refused() -> None:
    batch = _made(rollout_batch, 5)
    with pytest.raises(DataError, match="group 2 has 1 rows, but must have 2"):
        batch.validate(group_size=2)
    batch.select([0, 1, 2, 3]).validate(group_size=2)


def test_truncated_completions_lose_their_actions() -> None:
    batch = _made(rollout_batch, 4)
    kept = batch.without_truncated()
    assert batch.truncated.tolist()[1] is True
    assert not bool(kept.action_mask[batch.truncated].any())
    assert torch.equal(kept.action_mask[~batch.truncated], batch.action_mask[~batch.truncated])


def test_too_many_parts_and_nothing_to_merge_are_refused() -> None:
    batch = _made(row_batch, 3)
    with pytest.raises(ConfigError, match="parts=4"):
        batch.split(4)
    with pytest.raises(DataError, match="no batch"):
        type(batch).merge([])
    pairs = _made(pair_batch, 2)
    with pytest.raises(DataError, match="margin is set in only some"):
        PairBatch.merge([pairs, replace(pairs, margin=None)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_moves_as_a_whole(kind: Callable[..., Sequences]) -> None:
    batch = _made(kind, 2).to("meta")
    assert all(value.device.type == "meta" for value in batch._tensors().values())
