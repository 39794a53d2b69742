"""Chunked attention against float64 attention in one process, and against Ulysses."""

import tempfile
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

import distributed
from sequence_parallel import GRID, Case, errors, grid
from sharpen.core.errors import ConfigError
from sharpen.plan.communication import ulysses_bytes
from sharpen.plan.training import block_activation_bytes, checkpointed_block_bytes
from sharpen.train import ActConfig, TrainConfig
from sharpen.train.comm import Axis
from sharpen.train.predict import training_job
from sharpen.train.sp import SPContext, fpdt_attention, shard_sequence, ulysses_attention
from sharpen.train.tensor_store import FileStore
from small_models import small_model

LIMITS = [1e-10] * len(GRID) + [2e-6] * len(GRID)


def some(case, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = case.heads, case.kv_heads, case.kv_heads
    shapes = [(case.batch, case.tokens, n, case.size) for n in counts]
    return [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]


@pytest.mark.parametrize("chunks", [1, 4])
def test_one_rank_is_plain_attention(chunks):
    alone = Axis(None)
    for case, limit in zip(grid(), LIMITS, strict=True):
        assert max(errors(case, alone, alone, technique="fpdt", chunks=chunks)) <= limit


def test_chunks_that_wait_in_a_file_come_back_bit_by_bit(tmp_path):
    case = Case(heads=4, kv_heads=2, tokens=40, documents=(11,))
    store, results = FileStore(tmp_path), []
    for where in (None, store):
        q, k, v = some(case)
        ids = case.document_ids(40)
        out = fpdt_attention(q, k, v, group=None, causal=True, chunks=5, store=where, doc_ids=ids)
        out.square().sum().backward()
        results.append([out.detach(), q.grad, k.grad, v.grad])
    assert store.bytes_written >= 2 * sum(x.numel() * x.element_size() for x in (q, k, v))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    store.close()


@pytest.mark.parametrize("stored", [False, True])
def test_a_graph_that_is_retained_has_the_same_gradients_again(tmp_path, stored):
    store = FileStore(tmp_path) if stored else None
    q, k, v = some(Case(tokens=8))
    out = fpdt_attention(q, k, v, group=None, causal=True, chunks=2, store=store).sum()
    first = torch.autograd.grad(out, (q, k, v), retain_graph=True)
    again = torch.autograd.grad(out, (q, k, v))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="a second time"):
        out.backward()


@pytest.mark.parametrize("chunks", [0, 9])
def test_chunks_must_fit_the_tokens(chunks):
    q, k, v = some(Case(tokens=8))
    with pytest.raises(ConfigError, match="from 1 to the 8 tokens"):
        fpdt_attention(q, k, v, group=None, causal=True, chunks=chunks)


def check(heads):
    """Worst errors with and without a file; bytes sent by chunks and by Ulysses at once."""
    sp = Axis(torch.distributed.group.WORLD, "sp")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = FileStore(folder)
        for cases, chunks, where in ((GRID, 3, None), (GRID[4:8], 2, store)):
            options = {"technique": "fpdt", "chunks": chunks, "store": where}
            found += [max(errors(case, sp, Axis(None), **options)) for case in cases]
        store.close()
    case, sent = Case(heads=heads[0], kv_heads=heads[1], tokens=6, batch=1), []
    for technique in (fpdt_attention, ulysses_attention):
        options = {"chunks": 3} if technique is fpdt_attention else {}
        sp.reset()
        out = technique(*some(case), group=sp, causal=True, **options)
        forward = sp.bytes_sent
        out.sum().backward()
        sent.append((forward, sp.bytes_sent - forward))
    return found, sent


@pytest.mark.slow
def test_ranks_compute_what_one_process_computes_and_send_what_ulysses_sends():
    heads, ranks = (9, 3), 2
    formula = ulysses_bytes(*heads, 8, ranks=ranks, tokens=6, element_bytes=4)
    for rank, (found, sent) in enumerate(distributed.run(check, ranks, heads)):
        assert max(found) <= 1e-10
        assert sent[0] == sent[1] == (formula[rank].forward, formula[rank].backward)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("mode", ["none", "full", "selective"])
def test_a_model_attends_in_chunks_where_its_context_says_so(tmp_path, mode, stored):
    ids = torch.arange(60).view(2, 30)
    documents = (torch.arange(30) // 13).expand(2, 30)
    store, gradients = FileStore(tmp_path), []
    for options in ({}, {"chunks": 4, "store": store if stored else None}):
        ctx = SPContext(**options)
        model = small_model(2).double().train()
        model.sequence, model.checkpointing = ctx, mode
        batch = shard_sequence({"input_ids": ids, "document_ids": documents}, ctx)
        model(batch["input_ids"]).logsumexp(-1).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert (store.bytes_written > 0) == stored
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    store.close()


class Lengths(TorchDispatchMode):
    """Tokens of every matrix that queries' weights are multiplied with."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.seen = weight, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.mm.default and args[1].data_ptr() == self.weight.data_ptr():
            self.seen.append(args[0].shape[0])
        return function(*args, **(kwargs or {}))


def test_queries_and_keys_are_projected_a_chunk_at_a_time():
    ctx = SPContext(chunks=4)
    model = small_model(2, num_layers=1).train()
    model.sequence = ctx
    batch = shard_sequence({"input_ids": torch.arange(30)[None]}, ctx)
    with Lengths(model.model.layers[0].self_attn.q_proj.weight) as lengths:
        model(batch["input_ids"]).sum().backward()
    forward, backward = [8, 8, 7, 7], [7, 7, 8, 8]
    assert [n for n in lengths.seen if n <= 8][:4] == forward
    assert max(lengths.seen) == 8
    assert len(lengths.seen) >= len(forward + backward)


def kept_bytes(model, batch):
    """Of all tensors that wait for the backward pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(batch["input_ids"])
    assert hidden.requires_grad
    return sum(storage.nbytes() for storage in seen.values())


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_a_block_keeps_what_is_planned(tmp_path, mode, stored):
    ids, found, store = torch.arange(256)[None], [], FileStore(tmp_path)
    for layers in (2, 3):
        ctx = SPContext(chunks=4, store=store if stored else None)
        model = small_model(num_layers=layers).train()
        model.sequence, model.checkpointing = ctx, mode
        found.append(kept_bytes(model, shard_sequence({"input_ids": ids}, ctx)))
    act = ActConfig(mode=mode, attention_chunk=64, attention_store="nvme" if stored else "none")
    data = SimpleNamespace(max_tokens=256, format="text")
    job = training_job(TrainConfig(act=act), model.spec, data)
    planned = block_activation_bytes if mode == "none" else checkpointed_block_bytes
    assert found[1] - found[0] == planned(job)
    store.close()


def test_a_context_has_chunks_or_none():
    with pytest.raises(ConfigError, match="chunks=0"):
        SPContext(chunks=0)
