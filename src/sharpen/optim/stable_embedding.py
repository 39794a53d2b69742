"""Embedding that trains steadily with 8-bit states.

Dettmers et al., 8-bit Optimizers via Block-wise Quantization, ICLR 2022 (arXiv 2110.02861), section
2.3::

    x = LayerNorm(W[token]),    W ~ uniform(-a, a),  a = sqrt(6 / (rows + columns))   (Xavier)

Gradients of embeddings differ by orders of magnitude between frequent and rare tokens; the norm and
the narrower start keep the largest small. The paper also keeps states of this weight in 32 bits:
:func:`sharpen.optim.param_groups` and :func:`sharpen.optim.create` do so for every embedding.

Differs from the paper: none. Memory: two vectors beside the embedding's weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StableEmbedding"]


class StableEmbedding(nn.Embedding):
    """An ``nn.Embedding`` with Xavier's start and a layer norm behind it.

    Args:
        num_embeddings: tokens.
        embedding_dim: width.
        padding_idx: token whose row starts as 0 and gets no gradient.
        max_norm: see ``nn.Embedding``.
        norm_type: see ``nn.Embedding``.
        scale_grad_by_freq: see ``nn.Embedding``.
        device: of the weights.
        dtype: of the weights and the output.

    Examples:
        >>> layer = StableEmbedding(10, 4, padding_idx=0)
        >>> layer(torch.tensor([[1, 2, 0]])).shape
        torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            device=device,
            dtype=dtype,
        )
        self.norm = nn.LayerNorm(embedding_dim, device=device)

    def reset_parameters(self) -> None:
        """Xavier's uniform start; the row of ``padding_idx`` is 0."""
        nn.init.xavier_uniform_(self.weight)
        self._fill_padding_idx_with_zero()

    def forward(self, input: Tensor) -> Tensor:
        """Normed rows.

        Args:
            input: tokens, integers of any shape.

        Returns:
            That shape and the width, in the type of the weight.
        """
        rows = super().forward(input).to(self.norm.weight.dtype)
        out: Tensor = self.norm(rows)
        return out.to(self.weight.dtype)
