"""Training: one loop for pre-training, full and low-rank fine-tuning; checkpoints; the stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sharpen.core.lazy import exports

if TYPE_CHECKING:
    from sharpen.train.checkpoint import Checkpoint, CheckpointManager
    from sharpen.train.config import (
        ActConfig,
        CheckpointConfig,
        FTConfig,
        MetricsConfig,
        ParallelConfig,
        TrainConfig,
    )
    from sharpen.train.half import HalfFineTuning, choose_half
    from sharpen.train.loss import linear_cross_entropy, tiled_loss
    from sharpen.train.trainer import Callback, StepReport, Trainer, TrainResult
    from sharpen.train.work import StepWork, TokenWork, Work

__all__ = [
    "ActConfig",
    "Callback",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointManager",
    "FTConfig",
    "HalfFineTuning",
    "MetricsConfig",
    "ParallelConfig",
    "StepReport",
    "StepWork",
    "TokenWork",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "Work",
    "choose_half",
    "linear_cross_entropy",
    "tiled_loss",
]

__getattr__ = exports(
    __name__,
    {
        "ActConfig": "sharpen.train.config",
        "Callback": "sharpen.train.trainer",
        "Checkpoint": "sharpen.train.checkpoint",
        "CheckpointConfig": "sharpen.train.config",
        "CheckpointManager": "sharpen.train.checkpoint",
        "FTConfig": "sharpen.train.config",
        "HalfFineTuning": "sharpen.train.half",
        "MetricsConfig": "sharpen.train.config",
        "ParallelConfig": "sharpen.train.config",
        "StepReport": "sharpen.train.trainer",
        "StepWork": "sharpen.train.work",
        "TokenWork": "sharpen.train.work",
        "TrainConfig": "sharpen.train.config",
        "TrainResult": "sharpen.train.trainer",
        "Trainer": "sharpen.train.trainer",
        "Work": "sharpen.train.work",
        "choose_half": "sharpen.train.half",
        "linear_cross_entropy": "sharpen.train.loss",
        "tiled_loss": "sharpen.train.loss",
    },
)
