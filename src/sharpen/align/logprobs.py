"""Log-probabilities of given tokens that never hold all logits.

For hidden states h_i, head weight W, tokens y_i and a temperature T, with a softcap t::

    l_i = W h_i (+ bias),  with softcap: t tanh(l_i / t);   l_i <- l_i / T
    s_i = logsumexp(l_i)
    log p_i = l_i[y_i] - s_i
    H_i     = s_i - sum_v p_i[v] l_i[v]
    d_i = g_i (onehot(y_i) - p_i) - e_i p_i (log p_i + H_i)         g, e: gradients of log p and H
    dL/dh_i = d_i W / T,    dL/dW = sum_i d_i h_i^T / T

The gradients of log-probabilities are known only once the loss is: the forward pass keeps s_i, and
the backward pass forms the logits of each tile again; where all rows are one tile, it is kept.
Where the caller knows what the loss will send back (a policy gradient on the policy's own actions
does not depend on their log-probabilities), d_i is formed in the forward pass, from logits that are
formed once; should something else arrive, they are formed again.

Memory is O(tile V) beside the inputs and their gradients, whatever the number of rows: the whole
[rows, V] in float32 would be the largest tensor of the step. Softmax and sums are float32 (float64
for float64), also where matrix products run in 16 bits; a 16-bit log-softmax is wrong in its second
digit.

:func:`token_scores` gives what a value-based method needs instead: the token's logit and the
largest, whose gradients touch two rows of W.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.models.head_tiles import HeadGradients, HeadTiles, LogitsTile, row_tiles
from sharpen.models.tile_sizes import logits_tile

_LEAST = 32

__all__ = ["TokenLogprobs", "TokenScores", "token_logprobs", "token_scores"]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What :func:`token_logprobs` returns."""

    logp: Tensor
    """[...] log-probability of each token, float32 at least."""
    entropy: Tensor | None
    """[...] of the distribution that each token was drawn from, in nats; None where not asked."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What :func:`token_scores` returns; their difference is the log of a ratio to the best."""

    logit: Tensor
    """[...] of each token, float32 at least."""
    max_logit: Tensor
    """[...] the largest in its place."""
    argmax: Tensor
    """[...] int64: the token that has it; the first of several."""


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    temperature: float = 1.0,
    tile: int | None = None,
    entropy: Literal[False, True, "gradient"] = False,
    bias: Tensor | None = None,
    softcap: float | None = None,
    expected: Tensor | None = None,
) -> TokenLogprobs:
    """Log-probabilities of tokens under ``softmax(hidden @ weight.T / temperature)``.

    Args:
        hidden: [..., H] hidden states after the final norm, each in the place *before* its token;
            only the places whose tokens matter.
        weight: [V, H], the head's weight, of any float type.
        tokens: [...], int64.
        temperature: what logits are divided by; the one the tokens were drawn with.
        tile: rows of logits held at once; None holds about 64 MiB, on CUDA 256.
        entropy: whether the entropies are returned too, and whether gradients flow through them.
        bias: [V], added to the logits; None for none.
        softcap: logits are squeezed into (-softcap, softcap) before the temperature; None for none.
        expected: [...] gradient of the log-probabilities, up to a factor, where it is known
            beforehand; not together with a gradient through entropies.

    Returns:
        Log-probabilities of the shape of ``tokens``. First derivatives only.

    Raises:
        ConfigError: the temperature, the tile or the cap is not above 0, or shapes do not agree.
    """
    _check(hidden, weight, tokens, temperature, tile, softcap)
    rows = hidden.reshape(-1, hidden.shape[-1])
    size = _tile_of(len(rows), weight, tile)
    learns = (
        hidden.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    learns = learns and torch.is_grad_enabled()
    if not learns or entropy == "gradient":
        expected = None
    keep = learns and expected is None and len(rows) <= size
    options = _Options(temperature, size, softcap, entropy, keep)
    logp, spread = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        rows,
        weight,
        bias,
        tokens.reshape(-1),
        options,
        None if expected is None else expected.reshape(-1),
    )
    if entropy is True:
        spread = spread.detach()
    shape = tokens.shape
    return TokenLogprobs(logp.reshape(shape), spread.reshape(shape) if entropy else None)


def token_scores(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    tile: int | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> TokenScores:
    """Logits of tokens and the largest logits in their places.

    Gradients flow to the row of ``weight`` of the token and of the largest one. Where the
    vocabulary is padded, give ``weight[:vocab_size]``, or the largest may be that of no token.

    Args:
        hidden: as in :func:`token_logprobs`, with ``weight``, ``tokens``, ``tile``, ``bias`` and
            ``softcap``.
        weight: see there.
        tokens: see there.
        tile: see there.
        bias: see there.
        softcap: see there.

    Raises:
        ConfigError: the tile or the cap is not above 0, or shapes do not agree.
    """
    _check(hidden, weight, tokens, 1.0, tile, softcap)
    rows = hidden.reshape(-1, hidden.shape[-1])
    with torch.no_grad():
        size = _tile_of(len(rows), weight, tile)
        tiles = HeadTiles(rows, weight, bias, tile=size, softcap=softcap)
        found = [
            tiles.logits(at).logits[:real].argmax(1)
            for at, real in row_tiles(torch.arange(len(rows), device=rows.device), tiles.tile)
        ]
    best = torch.cat(found) if found else tokens.new_zeros(0)

    def logits_of(chosen: Tensor) -> Tensor:
        exact = tiles.exact
        logits = (rows.to(exact) * F.embedding(chosen, weight).to(exact)).sum(-1)
        if bias is not None:
            logits = logits + bias[chosen].to(exact)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return logits.reshape(tokens.shape)

    return TokenScores(logits_of(tokens.reshape(-1)), logits_of(best), best.reshape(tokens.shape))


@dataclass(frozen=True, slots=True)
class _Options:
    temperature: float
    tile: int
    softcap: float | None
    entropy: Literal[False, True, "gradient"]
    keep: bool
    """Whether the only tile waits for the backward pass."""


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        options: _Options,
        expected: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        tiles = HeadTiles(hidden, weight, bias, tile=options.tile, softcap=options.softcap)
        count = len(tokens)
        log_sums = torch.empty(count, dtype=tiles.exact, device=hidden.device)
        logp = torch.empty_like(log_sums)
        entropy = torch.empty_like(log_sums) if options.entropy else log_sums.new_empty(0)
        spare = torch.empty_like(tiles.memory) if options.entropy or options.keep else None
        ctx.kept = ctx.formed = None
        if expected is not None:
            ctx.formed = HeadGradients.zeros(hidden, weight, bias, ctx.needs_input_grad[:3])
        for at, place in _places(count, options.tile, hidden.device):
            real = place.stop - place.start
            found = tiles.logits(at)
            logits = found.logits
            if options.temperature != 1:
                logits.div_(options.temperature)
            top = logits.amax(1, keepdim=True)
            logits.sub_(top)
            chosen = logits.gather(1, tokens[at, None])
            chances = logits.exp_() if spare is None else torch.exp(logits, out=spare[: len(at)])
            sums = chances.sum(1, keepdim=True)
            log_sum = sums.log()
            if options.entropy:
                mean = chances.mul_(logits).sum(1, keepdim=True) / sums
                entropy[place] = (log_sum - mean)[:real, 0]
            logp[place] = (chosen - log_sum)[:real, 0]
            log_sums[place] = (log_sum + top)[:real, 0]
            if options.keep:
                logits.sub_(log_sum)
                ctx.kept = tiles, found
            if expected is not None:
                weights = _weights(expected, at, place, options.temperature)
                if spare is None:
                    delta = chances.mul_(weights / sums)
                else:
                    delta = logits.sub_(log_sum).exp_().mul_(weights)
                delta.scatter_add_(1, tokens[at, None], -weights)
                tiles.backward(delta, at, found.slope, ctx.formed)
        ctx.save_for_backward(hidden, weight, bias, tokens, log_sums, entropy, expected)
        ctx.options = options
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, grad_logp: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, log_sums, entropy, expected = ctx.saved_tensors
        options: _Options = ctx.options
        formed: HeadGradients | None = ctx.formed
        ctx.formed = None
        if formed is not None:
            factor = _multiple(grad_logp, expected)
            if factor is not None:
                return (*_cast(formed, weight, bias, factor), None, None, None)
        kept: tuple[HeadTiles, LogitsTile] | None = ctx.kept
        ctx.kept = None  # it is used up; a second pass forms it again
        tiles = (
            HeadTiles(hidden, weight, bias, tile=options.tile, softcap=options.softcap)
            if kept is None
            else kept[0]
        )
        gradients = HeadGradients.zeros(hidden, weight, bias, ctx.needs_input_grad[:3])
        with_entropy = options.entropy == "gradient"
        spare = torch.empty_like(tiles.memory) if with_entropy else None
        for at, place in _places(len(tokens), options.tile, hidden.device):
            weights = _weights(grad_logp, at, place, options.temperature)
            if kept is None:
                found = tiles.logits(at)
                logits = found.logits
                if options.temperature != 1:
                    logits.div_(options.temperature)
                logits.sub_(log_sums[at, None])
            else:
                found = kept[1]
                logits = found.logits
            if spare is None:
                delta = logits.exp_().mul_(weights)
            else:
                delta = torch.exp(logits, out=spare[: len(at)])
                slopes = logits.add_(entropy[at, None])
                slopes.mul_(_weights(grad_entropy, at, place, options.temperature))
                delta.mul_(slopes.add_(weights))
            delta.scatter_add_(1, tokens[at, None], -weights)
            tiles.backward(delta, at, found.slope, gradients)
        return (*_cast(gradients, weight, bias, 1.0), None, None, None)


def _weights(gradient: Tensor, at: Tensor, place: slice, temperature: float) -> Tensor:
    """[rows, 1] of a tile's rows; those that fill it up get none."""
    filler = (0, len(at) - (place.stop - place.start))
    return F.pad(gradient[place], filler)[:, None] / -temperature


def _multiple(found: Tensor, expected: Tensor) -> float | None:
    """How many times what was expected is found; None where it is something else."""
    if not expected.numel():
        return 1.0
    top = expected.abs().argmax()
    size = float(expected[top])
    factor = float(found[top]) / size if size else 1.0
    same = torch.allclose(found, expected * factor, rtol=1e-5, atol=1e-6 * abs(size * factor))
    return factor if same else None


def _cast(
    gradients: HeadGradients, weight: Tensor, bias: Tensor | None, factor: float
) -> tuple[Tensor | None, ...]:
    """Gradients of hidden states, weight and bias in their types."""
    found = (
        gradients.hidden,
        None if gradients.weight is None else gradients.weight.to(weight.dtype),
        None if gradients.bias is None or bias is None else gradients.bias.to(bias.dtype),
    )
    return found if factor == 1 else tuple(None if one is None else one * factor for one in found)


def _tile_of(rows: int, weight: Tensor, tile: int | None) -> int:
    """Rows of a tile; no more than there are, in few sizes."""
    most = logits_tile(weight.shape[0], weight.device.type) if tile is None else tile
    return min(most, max(_LEAST, 1 << (rows - 1).bit_length())) if rows else min(most, _LEAST)


def _places(count: int, tile: int, device: torch.device) -> Iterator[tuple[Tensor, slice]]:
    """Rows of each tile, filled up, and where the real ones are."""
    start = 0
    for at, real in row_tiles(torch.arange(count, device=device), tile):
        if real:
            yield at, slice(start, start + real)
        start += real


def _check(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float,
    tile: int | None,
    softcap: float | None,
) -> None:
    if (
        temperature <= 0
        or (tile is not None and tile < 1)
        or (softcap is not None and softcap <= 0)
    ):
        raise ConfigError(
            f"temperature={temperature}, tile={tile} and softcap={softcap} must be above 0, the "
            "last two or None. For greedy choices use token_scores."
        )
    if hidden.shape[:-1] != tokens.shape or hidden.shape[-1] != weight.shape[1]:
        raise ConfigError(
            f"hidden is {list(hidden.shape)}, tokens {list(tokens.shape)} and weight "
            f"{list(weight.shape)}, but must be [..., H], [...] and [V, H]."
        )
