"""Labels by their probability as the first token of a reply, and its calibration.

A small model knows more than it says: it may prefer one label whatever the input is. Subtracting
each label's mean score over a batch of inputs takes that preference away.

Zhou, Wan, Proleev, Mincu, Chen, Heller and Roy, *Batch Calibration: Rethinking Calibration for
In-Context Learning and Prompt Engineering*, ICLR 2024 (arXiv 2309.17249), equation 5.

::

    s(y | x) = ln sum of P(t | x) over first tokens t that begin the label y and no other
    label    = argmax_y  s(y | x) - mean over the batch of s(y | x')

Differs from the paper: scores are logarithms of probabilities, and a label whose tokens are not
among the likeliest that the engine tells has the probability of the least likely of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.core.errors import ConfigError
from sharpen.core.lm.messages import ChatResponse

__all__ = ["TOP", "best_label", "label_scores", "mean_scores"]

TOP = 20
"""Likeliest first tokens that are asked for; OpenAI's API allows so many."""


def label_scores(response: ChatResponse, labels: Sequence[str]) -> dict[str, float] | None:
    """Score of each label; None where the reply ended before its first token.

    Args:
        response: of a request with ``logprobs=TOP`` and ``max_tokens=1``.
        labels: they must differ in their first letters.

    Raises:
        ConfigError: the engine tells no probabilities.
    """
    try:
        content = response.raw["choices"][0]["logprobs"]["content"]
        if content == [] and not response.text:
            return None
        top = [(str(one["token"]), float(one["logprob"])) for one in content[0]["top_logprobs"]]
    except (TypeError, KeyError, IndexError, ValueError):
        raise ConfigError(
            f"the model '{response.model}' tells no probabilities of tokens, which scores of labels"
            " need. Use decision: reply."
        ) from None
    if not top:
        raise ConfigError(f"the model '{response.model}' tells no likeliest tokens.")
    least = min(logprob for _, logprob in top)
    sums = dict.fromkeys(labels, 0.0)
    for token, logprob in top:
        begun = token.strip().casefold()
        owners = [label for label in labels if begun and label.casefold().startswith(begun)]
        if len(owners) == 1:
            sums[owners[0]] += math.exp(logprob)
    return {label: math.log(p) if p > 0 else least for label, p in sums.items()}


def mean_scores(batch: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean score of each label over a batch, which is not empty."""
    return {label: sum(one[label] for one in batch) / len(batch) for label in batch[0]}


def best_label(scores: Mapping[str, float], prior: Mapping[str, Any]) -> str:
    """The label of the highest score less its prior; of equal ones the first."""
    return max(scores, key=lambda label: scores[label] - prior.get(label, 0.0))
