"""A classifier of texts, trained on examples of what is wanted and what is not."""

from sharpen.data.quality.metrics import Metrics, evaluate
from sharpen.data.quality.model import QualityModel, train

__all__ = ["Metrics", "QualityModel", "evaluate", "train"]
