"""How many blocks of keys and values fit beside the weights and a round's own tensors.

On the CPU the default is 40 % of the free memory, at most 4 GiB. On a CUDA device the largest round
is run once, and the default is what is left of 90 % of the device.
"""

from __future__ import annotations

import psutil
import torch

from sharpen.core.errors import ConfigError, OutOfMemoryError
from sharpen.models.paged import PagedPart
from sharpen.serve.draw import Draw, draw
from sharpen.serve.paged_model import PagedModel

__all__ = ["cache_blocks"]

_MOST_CPU_BYTES = 4 << 30
_SHARE_OF_FREE = 0.4
_SHARE_OF_DEVICE = 0.9


def cache_blocks(
    model: PagedModel,
    block_size: int,
    cache_bytes: int | None,
    *,
    most: int,
    tokens: int,
    sequences: int,
) -> int:
    """Number of blocks.

    Args:
        model: whose keys and values they hold.
        block_size: tokens of a block.
        cache_bytes: of all blocks; None for the default.
        most: blocks that can be in use at the same time.
        tokens: of the largest round.
        sequences: of the largest round.

    Raises:
        ConfigError: ``cache_bytes`` holds less than a block.
        OutOfMemoryError: the largest round does not fit a CUDA device.
    """
    one = model.new_paged_cache(1, block_size)
    size = sum(x.nbytes for i in range(model.spec.num_layers) for x in one.buffers(i))
    if cache_bytes is not None and cache_bytes < size:
        raise ConfigError(
            f"cache_bytes={cache_bytes} holds less than one block of {block_size} tokens "
            f"({size} bytes)."
        )
    if cache_bytes is None and model.device.type == "cuda":
        cache_bytes = _left(model, block_size, tokens, sequences)
    elif cache_bytes is None:
        free = psutil.virtual_memory().available
        cache_bytes = min(_MOST_CPU_BYTES, int(_SHARE_OF_FREE * free))
    if cache_bytes < size:
        raise OutOfMemoryError(
            f"memory for keys and values is left for less than one block of {block_size} tokens "
            f"({size} bytes). Take a smaller model, or lower max_batched_tokens or max_batch."
        )
    return min(cache_bytes // size, most)


def _left(model: PagedModel, block_size: int, tokens: int, sequences: int) -> int:
    """Bytes of the device that the largest round leaves."""
    device = model.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    tokens = min(tokens, model.spec.max_positions)
    count = -(-tokens // block_size)
    try:
        cache = model.new_paged_cache(count, block_size)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        states = model.states([PagedPart([0] * tokens, 0, range(count))], cache)
        logits = model.logits(states.expand(sequences, -1).contiguous())
        draw(logits, [Draw(temperature=1.0, top_p=0.9)] * sequences)
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"a round of {tokens} tokens for {sequences} sequences does not fit {device} beside "
            f"{before / 1e9:.1f} GB of weights. Lower max_batched_tokens or max_batch."
        ) from None
    peak = torch.cuda.max_memory_allocated(device) - held
    del cache, states, logits
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return int(free - (1 - _SHARE_OF_DEVICE) * total - peak)
