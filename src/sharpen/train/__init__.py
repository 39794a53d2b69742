"""Training: one loop for pre-training, full and low-rank fine-tuning; checkpoints; the stage."""

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
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "choose_half",
    "linear_cross_entropy",
    "tiled_loss",
]
