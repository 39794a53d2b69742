"""The shared tests, for every optimizer there is."""

from typing import Any, ClassVar

from sharpen.optim.registry import available
from sharpen.testing.optim import GradientOptimizerConformance


class TestAdamW(GradientOptimizerConformance):
    name = "adamw"
    options: ClassVar[dict[str, Any]] = {"lr": 0.01}


class TestAdamW8bit(GradientOptimizerConformance):
    name = "adamw_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.01, "min_quant_size": 256}


class TestAdamW4bit(GradientOptimizerConformance):
    name = "adamw_4bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.01, "min_quant_size": 256}


def test_every_optimizer_is_tested() -> None:
    tested = {kind.name for kind in GradientOptimizerConformance.__subclasses__()}
    assert tested == set(available())
