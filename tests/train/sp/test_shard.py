import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.train.comm import Axis
from sharpen.train.sp import SPContext, auto, shard_sequence
from sharpen.train.sp.heads import share_heads
from sharpen.train.sp.layout import block_places, number_documents, padding_multiple


def context(sp=(0, 1), ring=(0, 1), layout="auto"):
    """A context that believes to be one of several ranks: (rank, size) of either axis."""
    ctx = SPContext(layout=layout)
    for axis, (rank, size) in ((ctx.sp, sp), (ctx.ring, ring)):
        axis.rank, axis.size = rank, size
    if layout == "auto" and ring[1] > 1:
        ctx.layout = "zigzag"
    return ctx


def everywhere(batch, sp, ring, layout="contiguous", **options):
    """The parts of all ranks laid where their tokens belong, and one context."""
    whole = {}
    for r in range(ring):
        for p in range(sp):
            ctx = context((p, sp), (r, ring), layout)
            local = shard_sequence(batch, ctx, **options)
            tokens = local["position_ids"].shape[1]
            places = ctx.places(tokens * sp * ring)
            for name, part in local.items():
                shape = (part.shape[0], tokens * sp * ring, *part.shape[2:])
                whole.setdefault(name, torch.full(shape, -7, dtype=part.dtype))[:, places] = part
    return whole, ctx


def test_labels_are_shifted_before_the_rows_are_cut():
    labels = torch.arange(10, 18)[None]
    whole, ctx = everywhere({"input_ids": labels, "labels": labels}, 4, 1)
    assert "labels" not in whole
    assert whole["shift_labels"].tolist() == [[11, 12, 13, 14, 15, 16, 17, -100]]
    assert ctx.n_valid == 7


def test_a_label_of_the_next_document_is_no_label():
    ids = torch.arange(6)[None]
    documents = torch.tensor([[0, 0, 0, 1, 1, 1]])
    whole, _ = everywhere({"input_ids": ids, "labels": ids, "document_ids": documents}, 2, 1)
    assert whole["shift_labels"].tolist() == [[1, 2, -100, 4, 5, -100]]


def test_labels_of_the_next_token_are_kept_as_they_are():
    ids = torch.arange(4)[None]
    whole, _ = everywhere({"input_ids": ids, "shift_labels": ids + 1}, 2, 1)
    assert whole["shift_labels"].tolist() == [[1, 2, 3, 4]]
    with pytest.raises(DataError, match="both 'labels' and 'shift_labels'"):
        everywhere({"input_ids": ids, "shift_labels": ids, "labels": ids}, 1, 1)


def test_padding_has_no_label_and_is_a_document_of_its_own():
    ids = torch.arange(1, 6)[None]
    whole, ctx = everywhere({"input_ids": ids, "labels": ids}, 2, 2, layout="zigzag")
    assert whole["input_ids"].tolist() == [[1, 2, 3, 4, 5, 0, 0, 0]]
    assert whole["shift_labels"].tolist() == [[2, 3, 4, 5, *[-100] * 4]]
    assert whole["document_ids"].tolist() == [[0] * 5 + [-1] * 3]
    assert whole["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert ctx.padded == 3 / 8
    assert ctx.longest == 8


@given(
    sp=st.integers(1, 4),
    ring=st.integers(1, 3),
    layout=st.sampled_from(["contiguous", "zigzag"]),
    length=st.integers(1, 20),
)
def test_every_token_goes_to_one_rank(sp, ring, layout, length):
    ids = torch.arange(1, length + 1)[None]
    whole, ctx = everywhere({"input_ids": ids, "labels": ids}, sp, ring, layout)
    padded = whole["input_ids"].shape[1]
    assert padded % padding_multiple(sp, ring, layout) == 0
    assert padded - length < padding_multiple(sp, ring, layout)
    assert whole["input_ids"][0].tolist() == [*range(1, length + 1), *[0] * (padded - length)]
    assert int((whole["shift_labels"] != -100).sum()) == ctx.n_valid == length - 1


def test_zigzag_gives_every_rank_an_early_and_a_late_chunk():
    assert [block_places(8, 2, r, "zigzag").tolist() for r in (0, 1)] == [
        [0, 1, 6, 7],
        [2, 3, 4, 5],
    ]
    assert [context((p, 2), (0, 2)).places(8).tolist() for p in (0, 1)] == [[0, 1], [6, 7]]


def test_positions_that_start_anew_begin_a_document():
    batch = {"input_ids": torch.ones(1, 6, dtype=torch.int64)}
    batch["position_ids"] = torch.tensor([[0, 1, 2, 0, 1, 0]])
    whole, _ = everywhere(batch, 2, 1)
    assert whole["document_ids"].tolist() == [[0, 0, 0, 1, 1, 2]]
    assert whole["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0]]


def test_documents_make_positions_and_a_mask_makes_padding():
    batch = {"input_ids": torch.ones(2, 5, dtype=torch.int64)}
    batch["document_ids"] = torch.tensor([[3, 3, 8, 8, 8], [1, 1, 1, 1, 1]])
    batch["attention_mask"] = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    whole, _ = everywhere(batch, 1, 1)
    assert whole["document_ids"].tolist() == [[3, 3, 8, 8, -1], [-1, 1, 1, 1, 1]]
    assert whole["position_ids"].tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 2, 3]]
    assert "attention_mask" not in whole


def test_other_entries_are_sliced_replicated_or_left_out():
    embeds, weights = torch.randn(1, 5, 3), torch.randn(1, 5)
    table = torch.randn(7)
    batch = {"inputs_embeds": embeds, "weights": weights, "table": table, "name": "x"}
    with pytest.raises(DataError, match=r"'table' is \[7\].*replicate_keys=\[...\]"):
        shard_sequence(batch, context((1, 2)), keys=["inputs_embeds", "table"])
    with pytest.raises(DataError, match="'name' is str"):
        shard_sequence(batch, context((1, 2)), replicate_keys=["table"])
    local = shard_sequence(
        batch, context((1, 2)), keys=["inputs_embeds", "weights"], replicate_keys=["table"]
    )
    assert set(local) == {"inputs_embeds", "weights", "table", "position_ids", "document_ids"}
    assert local["table"] is table
    torch.testing.assert_close(local["inputs_embeds"][:, :2], embeds[:, 3:])
    assert float(local["inputs_embeds"][:, 2].abs().max()) == 0
    with pytest.raises(ConfigError, match=r"no entry 'weigths'. Did you mean 'weights'\?"):
        shard_sequence(batch, context(), replicate_keys=["weigths"])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": torch.ones(1, 4)}, "neither 'input_ids' nor 'inputs_embeds'"),
        ({"input_ids": torch.ones(1, 0)}, "holds no tokens"),
        ({"input_ids": torch.ones(4)}, "replicate_keys"),
    ],
)
def test_a_batch_without_rows_of_tokens_is_refused(batch, message):
    with pytest.raises(DataError, match=message):
        shard_sequence(batch, context())


def test_a_length_that_does_not_divide_is_an_error_without_padding():
    batch = {"input_ids": torch.ones(1, 6, dtype=torch.int64)}
    with pytest.raises(
        ConfigError, match=r"6 tokens does not divide over 4 x 1 ranks.*multiple of 4"
    ):
        shard_sequence(batch, context((0, 4)), pad_to_multiple=False)
    with pytest.raises(ConfigError, match=r"6 tokens does not divide into 4 chunks \(zigzag"):
        shard_sequence(batch, context(ring=(0, 2)), pad_to_multiple=False)


def test_a_context_says_what_it_lacks():
    with pytest.raises(ConfigError, match="no batch is sharded yet"):
        _ = SPContext().n_valid
    with pytest.raises(ConfigError, match="layout='spiral' must be"):
        SPContext(layout="spiral")
    with pytest.raises(ConfigError, match="layout='spiral' must be"):
        block_places(8, 2, 0, "spiral")
    ctx = SPContext()
    assert (ctx.size, ctx.multiple, ctx.layout) == (1, 1, "contiguous")
    shard_sequence({"input_ids": torch.ones(1, 6, dtype=torch.int64)}, ctx)
    assert ctx.doc_ids.tolist() == [[0] * 6]


def test_documents_are_numbered_by_runs():
    ids = torch.tensor([[5, 5, 2, 2], [7, 7, 7, 5]])
    assert number_documents(ids, None).tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert number_documents(torch.full((2, 4), 3), None) is None
    assert number_documents(None, None) is None


@given(heads=st.integers(1, 40), kv=st.integers(1, 40), ranks=st.integers(1, 9))
def test_heads_are_shared_evenly_with_the_key_heads_they_use(heads, kv, ranks):
    kv = min(heads, kv)
    shares = share_heads(heads, kv, ranks)
    assert [i for s in shares for i in range(s.queries.start, s.queries.stop)] == list(range(heads))
    counts = [s.num_queries for s in shares]
    assert max(counts) - min(counts) <= 1
    for share in shares:
        used = [i * kv // heads for i in range(share.queries.start, share.queries.stop)]
        assert [share.keys.start + i for i in share.of_query] == used
        assert share.num_keys == share.keys.stop - share.keys.start == len(set(used))
        index = share.kv_index(torch.device("cpu"))
        if index is None:
            each = share.num_queries // share.num_keys
            assert list(share.of_query) == [i // each for i in range(share.num_queries)]


@pytest.mark.parametrize(
    ("heads", "kv", "world", "node", "expected"),
    [
        (32, 8, 8, 8, (8, 1)),
        (32, 8, 64, 8, (8, 8)),
        (40, 8, 16, 8, (8, 2)),
        (9, 3, 4, 4, (1, 4)),
        (9, 3, 6, 8, (3, 2)),
        (8, 2, 8, 8, (8, 1)),
        (7, 7, 7, 4, (1, 7)),
    ],
)
def test_auto_takes_the_largest_even_exchange_within_a_machine(heads, kv, world, node, expected):
    assert auto(heads, kv, world, node) == expected


def test_axes_are_taken_as_they_are():
    axis = Axis(None, "mine")
    assert Axis.of(axis, "sp") is axis
