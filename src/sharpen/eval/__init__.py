"""Measuring models: perplexity, held-out loss, multiple choice, exact match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.eval.choices import ChoiceResult, choice_log_likelihoods, score_choices
    from sharpen.eval.config import ExactMatchConfig
    from sharpen.eval.exact_match import (
        ExactMatchResult,
        normalize_answer,
        score_exact_match,
    )
    from sharpen.eval.loss import dataset_loss, perplexity, windowed_loss
    from sharpen.eval.tasks import Question, Task, load_task

__all__ = [
    "ChoiceResult",
    "ExactMatchConfig",
    "ExactMatchResult",
    "Question",
    "Task",
    "choice_log_likelihoods",
    "dataset_loss",
    "load_task",
    "normalize_answer",
    "perplexity",
    "score_choices",
    "score_exact_match",
    "windowed_loss",
]

__getattr__ = exports(
    __name__,
    {
        "ChoiceResult": "sharpen.eval.choices",
        "ExactMatchConfig": "sharpen.eval.config",
        "ExactMatchResult": "sharpen.eval.exact_match",
        "Question": "sharpen.eval.tasks",
        "Task": "sharpen.eval.tasks",
        "choice_log_likelihoods": "sharpen.eval.choices",
        "dataset_loss": "sharpen.eval.loss",
        "load_task": "sharpen.eval.tasks",
        "normalize_answer": "sharpen.eval.exact_match",
        "perplexity": "sharpen.eval.loss",
        "score_choices": "sharpen.eval.choices",
        "score_exact_match": "sharpen.eval.exact_match",
        "windowed_loss": "sharpen.eval.loss",
    },
)
