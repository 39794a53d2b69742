"""The conformance suite fails optimizers that break the contract."""

from typing import Any, ClassVar

import pytest

from sharpen.core.optimizer import Capabilities, Optimizer
from sharpen.search import Random
from sharpen.testing import OptimizerConformance
from sharpen.testing.search import branin


class Constant(Optimizer):
    name: ClassVar[str] = "constant"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True)

    def propose(self, number: int) -> dict[str, Any]:
        return self.space.default()


class Careless(Random):
    name: ClassVar[str] = "careless"
    capabilities: ClassVar[Capabilities] = Capabilities()
    calls = 0

    def propose(self, number: int) -> dict[str, Any]:
        Careless.calls += 1
        return super().propose(Careless.calls)


class Stubborn(Random):
    """Promises constraints and refuses them."""

    def __init__(self, space: Any, objectives: Any, constraints: Any = (), *, seed: int = 0):
        from sharpen.core.errors import ConfigError

        if constraints:
            raise ConfigError("no constraints. Able to: random")
        super().__init__(space, objectives, constraints, seed=seed)


def suite(optimizer: Any) -> OptimizerConformance:
    return type("Suite", (OptimizerConformance,), {"optimizer": optimizer})()


def test_branin_has_its_published_minima() -> None:
    for x, y in ((-3.14159265, 12.275), (3.14159265, 2.275), (9.42477796, 2.475)):
        assert branin(x, y) == pytest.approx(0.397887, abs=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [
        (Constant, "test_finds_a_known_optimum"),
        (Constant, "test_a_batch_is_diverse_and_numbered"),
        (Constant, "test_same_seed_gives_the_same_proposals_and_another_seed_others"),
        (Careless, "test_same_seed_gives_the_same_proposals_and_another_seed_others"),
        (Careless, "test_history_alone_determines_the_next_proposal"),
        (Careless, "test_goes_on_from_a_state_dict_and_a_pickle"),
        (Stubborn, "test_constraints_are_handled_or_refused"),
    ],
)
def test_an_optimizer_that_breaks_a_rule_fails(optimizer: Any, method: str) -> None:
    with pytest.raises(AssertionError):
        getattr(suite(optimizer), method)()


def test_an_optimizer_without_a_capability_refuses_and_passes() -> None:
    suite(Constant).test_several_objectives_are_handled_or_refused()
    suite(Constant).test_constraints_are_handled_or_refused()
