"""Measuring models: perplexity, held-out loss, multiple choice, exact match."""

from sharpen.eval.choices import ChoiceResult, choice_log_likelihoods, score_choices
from sharpen.eval.exact_match import (
    ExactMatchConfig,
    ExactMatchResult,
    normalize_answer,
    score_exact_match,
)
from sharpen.eval.perplexity import dataset_loss, perplexity, windowed_loss
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
