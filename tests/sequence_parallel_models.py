"""What the ranks of tests of whole models over sharded sequences run."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from sharpen.models.decoder import DecoderLM
from sharpen.train.loss import linear_cross_entropy
from sharpen.train.sp import SPContext, hf, shard_sequence
from small_models import small_model


def mesh_of(degrees: tuple[int, int]) -> DeviceMesh:
    return init_device_mesh("cpu", degrees, mesh_dim_names=("ring", "sp"))


def packed_batch(length: int, vocab: int = 300) -> dict[str, Tensor]:
    """Two rows of documents; half of the tokens have a label, few of them in the first third."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(3, vocab, (2, length), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.5, -100)
    labels[:, : length // 3] = -100
    documents = torch.zeros_like(ids)
    documents[0, 5:] += 1
    documents[0, length // 2 :] += 1
    documents[1, length - 4 :] += 1
    return {"input_ids": ids, "labels": labels, "document_ids": documents}


def model_of(dtype: torch.dtype, checkpointing: str = "none", **changes: object) -> DecoderLM:
    fields = {"num_heads": 9, "num_kv_heads": 3, "head_dim": 8, **changes}
    model = small_model(1, **fields).to(dtype).train()
    model.checkpointing = checkpointing  # type: ignore[assignment]
    return model


def model_loss(model: DecoderLM, batch: dict[str, Tensor], ctx: SPContext) -> Tensor:
    """This rank's share of the mean loss."""
    local = shard_sequence(batch, ctx)
    hidden = model.hidden(
        local["input_ids"],
        position_ids=local["position_ids"],
        document_ids=local["document_ids"],
    )
    return linear_cross_entropy(
        hidden, model.lm_head.weight, local["shift_labels"], scale=1 / ctx.n_valid
    )


def model_results(
    degrees: tuple[int, int] | None, dtype: torch.dtype, **changes: object
) -> tuple[float, dict[str, Tensor], list[float]]:
    """Loss and gradients of two micro-batches summed over ranks, and losses of 20 steps after."""
    ctx = SPContext(None if degrees is None else mesh_of(degrees))
    checkpointing = changes.pop("checkpointing", "none")
    model = model_of(dtype, str(checkpointing), **changes)
    if degrees is not None:
        model.sequence = ctx

    def step() -> float:
        model.zero_grad()
        losses = [model_loss(model, packed_batch(length), ctx) / 2 for length in (37, 24)]
        for loss in losses:  # after both forward passes: each keeps its own documents
            loss.backward()
        total = sum(losses).detach()
        if degrees is not None:
            dist.all_reduce(total)
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
        return float(total)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first = step()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    curve = []
    for _ in range(20 if dtype == torch.float32 else 0):
        optimizer.step()
        curve.append(step())
    return first, gradients, curve


MODELS: list[tuple[tuple[int, int], torch.dtype, dict[str, object]]] = [
    ((1, 2), torch.float32, {}),
    ((1, 2), torch.float64, {"checkpointing": "full"}),
    ((2, 1), torch.float64, {"family": "mistral", "sliding_window": 7}),
]


def all_model_results() -> tuple[list[tuple[float, dict[str, Tensor], list[float]]], list[float]]:
    """Of every model, and of two at once."""
    results = [model_results(degrees, dtype, **changes) for degrees, dtype, changes in MODELS]
    return results, two_contexts()


def two_contexts() -> list[float]:
    """Two models over different contexts, their passes interleaved; differences to one process."""
    found = []
    contexts = [SPContext(mesh_of((1, 2))), SPContext(mesh_of((2, 1)))]
    models = [model_of(torch.float64), model_of(torch.float64, num_heads=4, num_kv_heads=1)]
    batches = [packed_batch(20), packed_batch(26)]
    alone = [model_loss(m, b, SPContext()) for m, b in zip(models, batches, strict=True)]
    for model, ctx in zip(models, contexts, strict=True):
        model.sequence = ctx
    losses = [model_loss(*job) for job in zip(models, batches, contexts, strict=True)]
    for loss, expected in zip(losses, alone, strict=True):
        loss.backward()
        total = loss.detach().clone()
        dist.all_reduce(total)
        found.append(float((total - expected.detach()).abs()))
    assert contexts[0].sp.bytes_sent > 0 == contexts[0].ring.bytes_sent
    assert contexts[1].ring.bytes_sent > 0 == contexts[1].sp.bytes_sent
    return found


def llama(**changes: object) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=304,
        hidden_size=72,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=256,
        attn_implementation="sdpa",
        **changes,
    )
    return LlamaForCausalLM(config).eval()


def llama_errors() -> list[list[float]]:
    return [logits_errors(SPContext(mesh_of(degrees))) for degrees in ((1, 2), (2, 1))]


def logits_errors(ctx: SPContext) -> list[float]:
    """Differences of a Llama's logits: over ranks, of each packed document, and after disabling."""
    model = llama()
    batch = packed_batch(30)
    with torch.no_grad():
        plain = model(batch["input_ids"]).logits
        hf.enable(model, ctx)
        assert model.config._attn_implementation != "sdpa"
        local = shard_sequence({"input_ids": batch["input_ids"]}, ctx)
        whole = model(local["input_ids"], position_ids=local["position_ids"]).logits
        local = shard_sequence(batch, ctx)
        packed = model(local["input_ids"], position_ids=local["position_ids"]).logits
        hf.disable(model)
        after = model(batch["input_ids"]).logits
        expected = plain.clone()
        for row, documents in enumerate(batch["document_ids"]):
            for number in documents.unique():
                at = (documents == number).nonzero().squeeze(1)
                expected[row, at] = model(batch["input_ids"][row, at][None]).logits[0]
    length = ctx.size * local["input_ids"].shape[1]
    places = ctx.places(length)
    real = places < plain.shape[1]
    places = places[real]
    assert model.config._attn_implementation == "sdpa"
    return [
        float((whole[:, real] - plain[:, places]).abs().max()),
        float((packed[:, real] - expected[:, places]).abs().max()),
        float((after - plain).abs().max()),
    ]
