import pytest

from sharpen.core.errors import ConfigError
from sharpen.plan.serving.designs import (
    DESIGNS,
    Design,
    fluid_rates,
    make_design,
    max_rate,
    search_designs,
)
from sharpen.plan.serving.machines import MODELS, Machine
from sharpen.plan.serving.perf_model import ConstantPerfModel
from sharpen.plan.serving.traces import Trace

TRACE = Trace((0.0, 1.0), (1024, 1024), (11, 11))


def kind(name, prompt_s, token_s, power, cost):
    perf = ConstantPerfModel(prompt_s, token_s)
    return Machine(name=name, perf=perf, kv_capacity=10**6, power_w=power, cost_per_h=cost)


FAST = kind("fast", 0.1, 0.05, 100.0, 10.0)
CHEAP = kind("cheap", 0.4, 0.05, 60.0, 2.0)
SPLIT = Design("split", FAST, CHEAP)
ALONE = Design("alone", FAST)


def fluid(design, prompts, tokens, rate):
    """A cluster without waiting: 20 and 40 requests a second a machine, 10 where one does both."""
    if design.token is None:
        return rate <= 10.0 * prompts
    return rate <= min(20.0 * prompts, 40.0 * tokens)


@pytest.mark.parametrize("truth", [0.37, 5.0, 123.4])
@pytest.mark.parametrize("guess", [0.5, 10.0, 300.0])
def test_bisection_finds_the_last_rate_that_meets(truth, guess):
    found = max_rate(lambda rate: rate <= truth, guess, tolerance=0.01)
    assert truth * 0.98 <= found <= truth
    assert max_rate(lambda rate: rate <= truth, guess, least=truth + 1) == 0.0


def test_a_budget_is_spent_where_it_serves_most():
    best = search_designs([ALONE, SPLIT], TRACE, fluid, "iso-power", 1000.0, tolerance=0.01)
    assert [one.design.name for one in best] == ["split", "alone"]
    split, alone = best
    # By hand: 20 p = 40 t with 100 p + 60 t <= 1000 gives 7 and 5, so 140 a second.
    assert (split.prompts, split.tokens) == (7, 5)
    assert split.rate == pytest.approx(140, rel=0.02)
    assert (alone.prompts, alone.tokens, alone.machines) == (10, 0, 10)
    assert alone.rate == pytest.approx(100, rel=0.02)
    assert split.power_w <= 1000 and split.cost_per_h == 80.0
    by_cost = search_designs([SPLIT], TRACE, fluid, "iso-cost", 44.0)
    assert (by_cost[0].prompts, by_cost[0].tokens) == (4, 2)


@pytest.mark.parametrize(
    ("objective", "price"), [("min-cost", 3 * 10 + 2 * 2), ("min-machines", 5), ("min-power", 420)]
)
def test_the_least_that_serves_a_rate(objective, price):
    best = search_designs([ALONE, SPLIT], TRACE, fluid, objective, 60.0)
    assert {one.design.name: (one.prompts, one.tokens) for one in best} == {
        "split": (3, 2),
        "alone": (6, 0),
    }
    assert best[0].design.name == "split"
    values = {"min-cost": best[0].cost_per_h, "min-machines": best[0].machines}
    assert values.get(objective, best[0].power_w) == price


def test_a_design_that_never_meets_is_left_out():
    def never(design, prompts, tokens, rate):
        return design.token is None and fluid(design, prompts, tokens, rate)

    for objective in ("iso-power", "min-cost"):
        found = search_designs([SPLIT, ALONE], TRACE, never, objective, 500.0)
        assert [one.design.name for one in found] == ["alone"]
    assert search_designs([ALONE], TRACE, fluid, "iso-power", 50.0) == []


def test_the_designs_of_the_paper():
    made = {name: make_design(name, MODELS["llama2-70b"]) for name in DESIGNS}
    assert made["HA"].prompt.name == "dgx-h100" and made["HA"].token.name == "dgx-a100"
    assert made["HHcap"].power_w(1, 2) == 10200 + 2 * 7140
    assert made["Baseline-A100"].cost_per_h(10, 0) == 176.0
    prompts, tokens = fluid_rates(made["HA"], TRACE)
    assert prompts == pytest.approx(2048 / 0.134423 / 1024, rel=1e-3)
    assert tokens > prompts
    with pytest.raises(ConfigError, match=r"no design 'HHcat'\. Did you mean 'HHcap'"):
        make_design("HHcat", MODELS["llama2-70b"])


def test_bad_questions_are_refused():
    for objective, target, told in (
        ("iso-speed", 1.0, "no objective"),
        ("iso-cost", 0.0, "must be above 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            search_designs([SPLIT], TRACE, fluid, objective, target)
    with pytest.raises(ConfigError, match="trace is empty"):
        search_designs([SPLIT], Trace((), (), ()), fluid, "iso-cost", 1.0)
