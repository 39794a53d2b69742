"""Candidates ranked by the values of B-Coder, where there is no test to run.

Yu et al., "B-Coder", ICLR 2024, arXiv 2310.03173, section 4.4: Q of a trained policy implies a
reward for each token, r~(s, a) = Q(s, a) - g V(s'), and a program's score is their sum; of m
programs the k best are kept. Reads the model and the ``value_head.safetensors`` that ``bcoder``
writes.

The first of the two values, V_phi, was learnt on states of the model that ``bcoder`` began with and
was frozen on them. With that model given, it is asked on its states again; otherwise on those of
the trained model, which are near them and cost no second pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from sharpen.align.heads import DuelingHead, add_dueling_head, read_dueling_head
from sharpen.align.loop.programs import program_batch
from sharpen.align.losses.bcoder import BCoderConfig, program_score
from sharpen.align.rows.parse import Row
from sharpen.align.rows.read import read_feedback
from sharpen.align.rows.tokens import tokenize_rows
from sharpen.align.scoring import action_scores, states_of, values_of
from sharpen.core.config import Document, Marks, apply_overrides, from_dict
from sharpen.core.errors import ConfigError
from sharpen.models.load import load_model, resolve_model
from sharpen.models.tokenizer import load_tokenizer

__all__ = ["rank_file", "rank_programs"]

_CANDIDATES = 64  # of a forward pass


@torch.no_grad()
def rank_programs(
    model: str | Path,
    rows: Sequence[Row],
    options: BCoderConfig | None = None,
    *,
    start: str | Path | None = None,
    use_template: bool = False,
) -> list[list[float]]:
    """Scores of each row's candidates: the higher, the likelier right.

    Args:
        model: a folder that ``bcoder`` wrote.
        rows: of the kind ``ranked``; their own scores are not looked at.
        options: those that it was trained with; default the method's.
        start: the model that it began with; see the module. Adapters need it.
        use_template: put texts into the turns of the chat template, as in training.

    Returns:
        For each row, one number a candidate.

    Raises:
        ConfigError: the folder has no values, or those of another model, or adapters alone.
        DataError: a candidate has no tokens, or is too long for the model.
        MissingFileError: there is no such model.
    """
    folder = resolve_model(model)
    base = folder
    if (folder / "adapter_config.json").is_file():
        if start is None:
            raise ConfigError(
                f"{folder} holds adapters: give the model that training began with, too (start=, "
                "--start)."
            )
        base = resolve_model(start)
    policy = load_model(base, adapter=folder if base != folder else None)
    tokenizer = load_tokenizer(base)
    add_dueling_head(policy)
    read_dueling_head(policy, folder)
    policy.eval()
    first = load_model(start) if start is not None else None
    if first is not None and first.spec.hidden_size != policy.spec.hidden_size:
        raise ConfigError(
            f"{start} is not what {model} began with: its states have {first.spec.hidden_size} "
            f"numbers, not {policy.spec.hidden_size}."
        )
    options = options or BCoderConfig()
    head = policy.get_submodule("dueling")
    assert isinstance(head, DuelingHead)
    limit = policy.spec.max_positions
    tokens = tokenize_rows(rows, tokenizer, max_length=limit, use_template=use_template).rows
    queue = [(row, c, False) for row in tokens for c in range(len(row.masks))]
    scores: list[float] = []
    for at in range(0, len(queue), _CANDIDATES):
        batch = program_batch(queue[at : at + _CANDIDATES])
        mask, states = batch.action_mask, states_of(policy, batch)
        found = action_scores(policy, states, batch, alpha=options.alpha)
        before = states if first is None else states_of(first, batch)
        raw = values_of(head.phi, before, mask) + values_of(head.gained, states, mask)
        scores += program_score(found.advantage, raw, mask, options).tolist()
    left = iter(scores)
    return [[next(left) for _ in row.masks] for row in tokens]


def rank_file(
    model: str | Path,
    path: str | Path,
    options: Iterable[str] = (),
    *,
    top: int = 1,
    start: str | Path | None = None,
    use_template: bool = False,
) -> list[dict[str, Any]]:
    """The best candidates of each row of a file of the kind ``ranked``.

    Args:
        model: as of :func:`rank_programs`.
        path: of the rows.
        options: ``["key=value", ...]`` of :class:`~sharpen.align.losses.bcoder.BCoderConfig`.
        top: how many candidates of a row.
        start: as of :func:`rank_programs`.
        use_template: as of :func:`rank_programs`.

    Returns:
        For each row ``where`` it is, the ``scores`` of all its candidates, and the ``top`` ones:
        ``index``, ``candidate``, ``score``, the best first.

    Raises:
        ConfigError, DataError, MissingFileError: as :func:`rank_programs`, or a bad row or option.
    """
    given = apply_overrides(Document({}, Marks()), options).data
    config = from_dict(BCoderConfig, given, path="options of bcoder")
    rows = read_feedback(path, kind="ranked").rows
    found = []
    ranked = rank_programs(model, rows, config, start=start, use_template=use_template)
    for row, scores in zip(rows, ranked, strict=True):
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:top]
        best = [{"index": i, "candidate": row.completions[i], "score": scores[i]} for i in order]
        found.append({"where": row.where, "scores": scores, "top": best})
    return found
