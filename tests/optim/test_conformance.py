"""The shared tests, for every optimizer there is."""

from typing import Any, ClassVar

import torch
from torch import nn

from sharpen.optim.engine.base import Optimizer
from sharpen.optim.names import available
from sharpen.optim.q_apollo import quantize_weights
from sharpen.testing.optim import GradientOptimizerConformance, train

# Name, options, steps in which it learns.
PLAIN: list[tuple[str, dict[str, Any], int]] = [
    ("adamw", {"lr": 0.02}, 80),
    ("adamw_8bit", {"lr": 0.02, "min_quant_size": 256}, 80),
    ("adamw_4bit", {"lr": 0.02, "min_quant_size": 256}, 80),
    ("muon", {"lr": 0.02, "ns_dtype": "fp32"}, 80),
    ("cosmos", {"lr": 0.05, "rank": 8, "ns_dtype": "fp32"}, 80),
    ("apollo", {"lr": 0.02, "rank": 4, "update_proj_gap": 5}, 100),
    ("apollo_mini", {"lr": 0.02, "update_proj_gap": 5, "scale": 32.0}, 100),
    ("galore", {"lr": 0.05, "rank": 8, "update_proj_gap": 5}, 100),
    (
        "galore_8bit",
        {"lr": 0.05, "rank": 8, "update_proj_gap": 5, "proj": "randsvd", "min_quant_size": 128},
        100,
    ),
    ("fira", {"lr": 0.02, "rank": 8, "update_proj_gap": 5}, 100),
    ("frugal", {"lr": 0.01, "density": 0.5, "update_gap": 4}, 100),
    ("lion", {"lr": 0.005}, 60),
    ("lion_8bit", {"lr": 0.005, "min_quant_size": 256}, 60),
    ("sgd", {"lr": 0.3, "momentum": 0.9, "nesterov": True}, 60),
    ("sgd_8bit", {"lr": 0.3, "min_quant_size": 256}, 60),
    ("sign_sgd", {"lr": 0.005}, 60),
    ("nadamw", {"lr": 0.02}, 60),
    ("adagrad", {"lr": 0.05}, 60),
    ("adagrad_8bit", {"lr": 0.05, "min_quant_size": 256}, 60),
    ("ademamix", {"lr": 0.01, "t_alpha": 60, "t_beta3": 60}, 60),
    ("ademamix_8bit", {"lr": 0.01, "min_quant_size": 256}, 60),
    ("lamb", {"lr": 0.03}, 60),
    ("lamb_8bit", {"lr": 0.03, "min_quant_size": 256}, 60),
    ("adafactor", {"lr": 0.05}, 60),
]
for _name, _options, _steps in PLAIN:
    _title = f"Test_{_name}"
    globals()[_title] = type(
        _title,
        (GradientOptimizerConformance,),
        {
            "name": _name,
            "options": _options,
            "steps": _steps,
            # A projected state whose code is one more or less moves a whole row.
            **({"tolerance": 1e-4} if _name == "galore_8bit" else {}),
            "__module__": __name__,
        },
    )


class TestSoap(GradientOptimizerConformance):
    name = "soap"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "precondition_frequency": 3}
    steps = 80
    tolerance = 1e-3

    def run(self, steps: int, seed: int = 0, **more: Any) -> tuple[nn.Module, Optimizer]:
        """Where ways are compared, without the longer sides.

        Sixteen tokens leave many of their eigenvectors in a null space, where they turn with the
        last bit of a gradient.
        """
        return super().run(
            steps, seed, **({"max_precond_dim": 32} if "impl" in more else {}), **more
        )


class TestQApollo(GradientOptimizerConformance):
    name = "q_apollo"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "rank": 4, "update_proj_gap": 5}
    steps = 100

    def model(self, seed: int = 0) -> nn.Module:
        """With matrices in 8 bits."""
        model = super().model(seed)
        quantize_weights(model, group_size=48)
        return model

    def test_master_weights(self) -> None:
        """Weights in 8 bits have no copies in more."""
        model = self.model().to(torch.bfloat16)
        optimizer = self.make(model, master_weights=True)
        train(model, optimizer, 0, 5)
        for p, state in optimizer.state.items():
            assert ("master" in state) == (type(p) is nn.Parameter)


class TestBAdam(GradientOptimizerConformance):
    name = "badam"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "update_gap": 4}
    steps = 100

    def bare(self, params: list[nn.Parameter], **more: Any) -> Optimizer:
        """All at once: in three steps no other would come in turn."""
        return super().bare(params, **{"block_count": 9, **more})


class TestScheduleFreeAdamW(GradientOptimizerConformance):
    name = "schedule_free_adamw"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02}
    steps = 100

    def test_learning_rate_may_change(self) -> None:
        """With a rate of 0, z stays; the average goes on towards it."""
        model, optimizer = self.run(2)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        before = {p: state["z"].clone() for p, state in optimizer.state.items()}
        train(model, optimizer, 2, 3)
        for p, z in before.items():
            assert torch.equal(optimizer.state[p]["z"], z)


def test_every_optimizer_is_tested() -> None:
    tested = {kind.name for kind in GradientOptimizerConformance.__subclasses__()}
    assert tested == set(available())
