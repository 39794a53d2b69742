"""The shared tests, for every optimizer there is."""

from typing import Any, ClassVar

import torch
from torch import nn

from sharpen.optim.base import Optimizer
from sharpen.optim.names import available
from sharpen.optim.q_apollo import quantize_weights
from sharpen.testing.optim import GradientOptimizerConformance, train


class TestAdamW(GradientOptimizerConformance):
    name = "adamw"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02}
    steps = 80


class TestAdamW8bit(GradientOptimizerConformance):
    name = "adamw_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "min_quant_size": 256}
    steps = 80


class TestAdamW4bit(GradientOptimizerConformance):
    name = "adamw_4bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "min_quant_size": 256}
    steps = 80


class TestMuon(GradientOptimizerConformance):
    name = "muon"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "ns_dtype": "fp32"}
    steps = 80


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


class TestCosmos(GradientOptimizerConformance):
    name = "cosmos"
    options: ClassVar[dict[str, Any]] = {"lr": 0.05, "rank": 8, "ns_dtype": "fp32"}
    steps = 80


class TestApollo(GradientOptimizerConformance):
    name = "apollo"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "rank": 4, "update_proj_gap": 5}
    steps = 100


class TestApolloMini(GradientOptimizerConformance):
    name = "apollo_mini"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "update_proj_gap": 5, "scale": 32.0}
    steps = 100


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


class TestGaLore(GradientOptimizerConformance):
    name = "galore"
    options: ClassVar[dict[str, Any]] = {"lr": 0.05, "rank": 8, "update_proj_gap": 5}
    steps = 100


class TestGaLore8bit(GradientOptimizerConformance):
    name = "galore_8bit"
    options: ClassVar[dict[str, Any]] = {
        "lr": 0.05,
        "rank": 8,
        "update_proj_gap": 5,
        "proj": "randsvd",
        "min_quant_size": 128,
    }
    steps = 100


class TestFira(GradientOptimizerConformance):
    name = "fira"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02, "rank": 8, "update_proj_gap": 5}
    steps = 100


class TestFrugal(GradientOptimizerConformance):
    name = "frugal"
    options: ClassVar[dict[str, Any]] = {"lr": 0.01, "density": 0.5, "update_gap": 4}
    steps = 100


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


class TestLion(GradientOptimizerConformance):
    name = "lion"
    options: ClassVar[dict[str, Any]] = {"lr": 0.005}
    steps = 60


class TestLion8bit(GradientOptimizerConformance):
    name = "lion_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.005, "min_quant_size": 256}
    steps = 60


class TestSGD(GradientOptimizerConformance):
    name = "sgd"
    options: ClassVar[dict[str, Any]] = {"lr": 0.3, "momentum": 0.9, "nesterov": True}
    steps = 60


class TestSGD8bit(GradientOptimizerConformance):
    name = "sgd_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.3, "min_quant_size": 256}
    steps = 60


class TestSignSGD(GradientOptimizerConformance):
    name = "sign_sgd"
    options: ClassVar[dict[str, Any]] = {"lr": 0.005}
    steps = 60


class TestNAdamW(GradientOptimizerConformance):
    name = "nadamw"
    options: ClassVar[dict[str, Any]] = {"lr": 0.02}
    steps = 60


class TestAdagrad(GradientOptimizerConformance):
    name = "adagrad"
    options: ClassVar[dict[str, Any]] = {"lr": 0.05}
    steps = 60


class TestAdagrad8bit(GradientOptimizerConformance):
    name = "adagrad_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.05, "min_quant_size": 256}
    steps = 60


class TestAdEMAMix(GradientOptimizerConformance):
    name = "ademamix"
    options: ClassVar[dict[str, Any]] = {"lr": 0.01, "t_alpha": 60, "t_beta3": 60}
    steps = 60


class TestAdEMAMix8bit(GradientOptimizerConformance):
    name = "ademamix_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.01, "min_quant_size": 256}
    steps = 60


class TestLamb(GradientOptimizerConformance):
    name = "lamb"
    options: ClassVar[dict[str, Any]] = {"lr": 0.03}
    steps = 60


class TestLamb8bit(GradientOptimizerConformance):
    name = "lamb_8bit"
    options: ClassVar[dict[str, Any]] = {"lr": 0.03, "min_quant_size": 256}
    steps = 60


class TestAdafactor(GradientOptimizerConformance):
    name = "adafactor"
    options: ClassVar[dict[str, Any]] = {"lr": 0.05}
    steps = 60


def test_every_optimizer_is_tested() -> None:
    tested = {kind.name for kind in GradientOptimizerConformance.__subclasses__()}
    assert tested == set(available())
