"""Training data for models that write fast code: rewritten solutions, pairs, prompts."""

from __future__ import annotations

from sharpen.code.training_data.prompts import (
    Pair,
    prompt_conditioned,
    prompt_fewshot,
    prompt_instruct,
    tag_deciles,
)
from sharpen.code.training_data.retrieval import Retriever
from sharpen.code.training_data.selfplay import self_play
from sharpen.code.training_data.soap import SoapConfig, make_dataset

__all__ = [
    "Pair",
    "Retriever",
    "SoapConfig",
    "make_dataset",
    "prompt_conditioned",
    "prompt_fewshot",
    "prompt_instruct",
    "self_play",
    "tag_deciles",
]
