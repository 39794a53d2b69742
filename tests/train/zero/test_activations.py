"""What is left of a partition of activations (ZeRO-R) where ranks share sequences."""

from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh

from distributed import run
from sharpen.train.act import ActivationOffload
from sharpen.train.sp import SPContext, shard_sequence
from sharpen.train.tensor_store import FileStore
from small_models import small_model

TOKENS, LAYERS, HIDDEN, RANKS = 128, 4, 64, 2


def kept(folder: str, ranks: int) -> tuple[int, list[str]]:
    """Bytes of the blocks' inputs that wait for the backward pass; collectives of that pass."""
    model = small_model(num_layers=LAYERS).train()
    store = FileStore(Path(folder))
    model.checkpointing = "full"
    model.offload = ActivationOffload(store)
    ids = torch.arange(TOKENS)[None]
    batch = {"input_ids": ids, "labels": ids}
    context = None
    if ranks > 1:
        context = SPContext(init_device_mesh("cpu", (ranks,), mesh_dim_names=("sp",)))
        model.sequence = context
        batch = shard_sequence(batch, context)
    hidden = model.hidden(batch["input_ids"], position_ids=batch.get("position_ids"))
    if context is not None:
        context.sp.reset()
    hidden.square().sum().backward()
    store.close()
    return store.bytes_written, sorted(context.sp.traffic) if context is not None else []


def test_a_rank_of_a_sequence_keeps_its_share_of_checkpoints_and_gathers_none(
    tmp_path: Path,
) -> None:
    # The last block's input is used at once and stays where it is.
    alone, _ = kept(str(tmp_path), 1)
    assert alone == (LAYERS - 1) * TOKENS * HIDDEN * 4
    for share, collectives in run(kept, RANKS, str(tmp_path), RANKS):
        assert share == alone // RANKS
        assert collectives == ["exchange"]  # heads against tokens, as in the forward pass
