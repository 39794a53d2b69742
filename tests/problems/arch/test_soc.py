"""Systems on a chip: closed forms, and phases against small steps of time."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.problem import Problem, evaluate
from sharpen.core.problem_names import find_problem
from sharpen.problems.arch import APPLICATIONS, Soc, SocProblem, Task, make
from sharpen.problems.arch.soc import BUS, MEMORIES, PROCESSORS, simulate

BIG, DRAM = PROCESSORS["big"], MEMORIES["dram"]


def system(tasks: tuple[Task, ...], **changes: Any) -> Soc:
    parts: dict[str, Any] = {
        "processors": (("big", 1.0, 0),),
        "memories": (("dram", 1.0, 0),),
        "buses": (32,),
        "runs_on": {task.name: 0 for task in tasks},
        "lies_in": {task.name: 0 for task in tasks},
        **changes,
    }
    return Soc(**parts)


# -- closed forms ---------------------------------------------------------------------------------


def test_a_chain_takes_the_sum_of_its_tasks() -> None:
    tasks = (Task("a", 80, 0.0), Task("b", 160, 0.0, ("a",)), Task("c", 40, 0.0, ("b",)))
    found = simulate(tasks, system(tasks))
    assert found.latency == pytest.approx((80 + 160 + 40) / BIG.rate * 1e3)
    assert found.phases == 3
    # 60 pJ an operation at 1 GHz, and what leaks.
    leakage = BIG.leakage + DRAM.leakage + 4 * BUS.leakage
    energy = 280e6 * 60e-12 * 1e3 + leakage * found.latency * 1e-3
    assert found.energy == pytest.approx(energy)
    assert found.power == pytest.approx(energy / found.latency * 1e3)
    assert found.area == pytest.approx(BIG.area + DRAM.area + 4 * BUS.area)


def test_tasks_of_a_processor_share_it() -> None:
    tasks = (Task("short", 80, 0.0), Task("long", 240, 0.0))
    found = simulate(tasks, system(tasks))
    # Each at half pace until the short one is done, then the long one alone.
    assert found.ends["short"] == pytest.approx(2 * 80 / BIG.rate * 1e3)
    assert found.ends["long"] == pytest.approx((2 * 80 + 160) / BIG.rate * 1e3)
    apart = system(tasks, processors=(("big", 1.0, 0),) * 2, runs_on={"short": 0, "long": 1})
    assert simulate(tasks, apart).latency == pytest.approx(240 / BIG.rate * 1e3)


def test_the_slowest_of_processor_memory_and_bus_sets_the_pace() -> None:
    for ops, out, width in ((800, 1.0, 32), (8, 80.0, 32), (8, 80.0, 4)):
        tasks = (Task("a", ops, out),)
        found = simulate(tasks, system(tasks, buses=(width,)))
        compute, memory = ops / BIG.rate, out / DRAM.rate
        bus = out / (BUS.rate * width / 8)
        assert found.latency == pytest.approx(max(compute, memory, bus) * 1e3)


def test_an_accelerator_has_the_speed_of_its_task_alone() -> None:
    tasks = (Task("a", 160, 0.0, (), 10.0), Task("b", 160, 0.0, ("a",)))
    chip = system(tasks, processors=(("accelerator", 0.5, 0),))
    found = simulate(tasks, chip)
    rate = PROCESSORS["accelerator"].rate * 0.5
    assert found.ends["a"] == pytest.approx(160 / rate / 10 * 1e3)
    assert found.ends["b"] - found.ends["a"] == pytest.approx(160 / rate * 1e3)


def test_bytes_cross_every_bus_between() -> None:
    tasks = (Task("a", 0.0, 40.0),)
    slow_middle = {"buses": (32, 4, 32), "processors": (("big", 1.0, 0),)}
    near = simulate(tasks, system(tasks, **slow_middle))
    far = simulate(tasks, system(tasks, **slow_middle, memories=(("dram", 1.0, 2),)))
    assert near.latency == pytest.approx(40.0 / DRAM.rate * 1e3)
    assert far.latency == pytest.approx(40.0 / (BUS.rate * 4 / 8) * 1e3)
    leak = (far.latency - near.latency) * 1e-3 * (BIG.leakage + DRAM.leakage + 8.5 * BUS.leakage)
    assert far.energy - near.energy == pytest.approx(leak + 2 * 40e6 * 2e-12 * 1e3)


# -- phases against small steps -------------------------------------------------------------------


def stepped(tasks: tuple[Task, ...], soc: Soc, steps: int) -> dict[str, float]:
    """Milliseconds at which tasks end, with all that is shared looked at anew in each step."""
    total = simulate(tasks, soc).latency * 1e-3
    step, now = total / steps, 0.0
    done = {task.name: 0.0 for task in tasks}
    ends: dict[str, float] = {}
    known = {task.name: task for task in tasks}
    while len(ends) < len(tasks):
        running = [t for t in tasks if t.name not in ends and all(o in ends for o in t.after)]
        uses: dict[str, dict[str, float]] = {}
        for t in running:
            number = soc.runs_on[t.name]
            kind, ghz, bus = soc.processors[number]
            faster = t.speedup if kind == "accelerator" else 1.0
            mine = {f"p{number}": t.ops / (PROCESSORS[kind].rate * ghz * faster)}
            for name in (*t.after, t.name):
                memory = soc.lies_in[name]
                kind, ghz, other = soc.memories[memory]
                for key, rate in [
                    (f"m{memory}", MEMORIES[kind].rate * ghz),
                    *(
                        (f"b{k}", BUS.rate * soc.buses[k] / 8)
                        for k in range(min(bus, other), max(bus, other) + 1)
                    ),
                ]:
                    mine[key] = mine.get(key, 0.0) + known[name].out / rate
            uses[t.name] = {key: value for key, value in mine.items() if value > 0}
        for t in running:
            paces = [
                1 / (value * sum(key in other for other in uses.values()))
                for key, value in uses[t.name].items()
            ]
            done[t.name] += step * min(paces, default=float("inf"))
        now += step
        for t in running:
            if done[t.name] >= 1:
                ends[t.name] = now * 1e3
    return ends


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(sorted(APPLICATIONS)))
def test_phases_end_where_small_steps_do(seed: int, name: str) -> None:
    problem = SocProblem(name)
    [config] = problem.space.sample(1, seed=seed)
    soc = problem.system(config)
    found = simulate(problem.tasks, soc)
    steps = 4000
    ends = stepped(problem.tasks, soc, steps)
    for task in problem.tasks:
        # Each task of a chain may end a step late, and what it shares is freed that much later.
        late = 3 * len(problem.tasks) * found.latency / steps
        assert found.ends[task.name] == pytest.approx(ends[task.name], abs=late)


# -- the problem ----------------------------------------------------------------------------------


def test_only_what_the_system_has_is_in_its_configuration() -> None:
    problem = make("soc-v0", workload="audio")
    assert isinstance(problem, Problem)
    assert problem.space.is_conditional
    for config in problem.space.sample(60, seed=1):
        soc = problem.system(config)
        assert len(soc.processors) == config["processors"]
        assert len(soc.memories) == config["memories"]
        assert len(soc.buses) == config["buses"]
        active = {name for name in config if name.startswith("processors.")}
        assert len({name.split(".")[1] for name in active}) == config["processors"]
        if config["processors"] == 1:
            assert not any("processors-of" in name for name in config)
    systems = [repr(problem.system(config)) for config in problem.space.sample(300, seed=3)]
    digests = [problem.space.digest(config) for config in problem.space.sample(300, seed=3)]
    assert len(set(systems)) == len(set(digests))


def test_the_distance_is_what_exceeds_the_budgets() -> None:
    budgets = {"latency": 30.0, "power": 100.0, "area": 5.0}
    problem = make("soc-v0", workload="network", budgets=budgets, weights={"power": 2.0})
    config = problem.space.default()
    info = evaluate(problem, config).info
    far = [max(0.0, info[m] - b) / b for m, b in budgets.items()]
    assert problem.evaluate(config)["distance"] == pytest.approx(far[0] + 2 * far[1] + far[2])
    wide = make("soc-v0", budgets=dict.fromkeys(budgets, 1e9))
    assert wide.evaluate(wide.space.default())["distance"] == 0


def test_a_study_comes_nearer_to_the_budgets() -> None:
    problem = find_problem("soc-v0", {"workload": "vision"})
    first = evaluate(problem, problem.space.default()).objectives["distance"]
    budget = sh.Budget(trials=150)
    study = sh.Study(problem, optimizer="annealing", store="sqlite://", budget=budget).run()
    assert study.best.value < first / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workload": "visoin"}, "no application 'visoin'. Did you mean 'vision'"),
        ({"workload": [Task("a", 1, 1), Task("a", 1, 1)]}, "names of their own"),
        ({"workload": [Task("a", 1, 1)]}, "need budgets of latency, power, area"),
        ({"budgets": {"speed": 1.0}}, "budgets has 'speed'"),
        ({"weights": {"area": -1.0}}, r"weights\['area'\]=-1.0 must be positive"),
        ({"target": "power"}, "no option 'target'"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("soc-v0", **options)


def test_wrong_systems_and_tasks_are_errors() -> None:
    tasks = (Task("a", 1, 1), Task("b", 1, 1, ("a",)))
    circle = (Task("a", 1, 1, ("b",)), Task("b", 1, 1, ("a",)))
    with pytest.raises(ConfigError, match="wait for each other"):
        simulate(circle, system(circle))
    lost = (Task("a", 1, 1, ("x",)),)
    with pytest.raises(ConfigError, match="reads 'x', which is no task"):
        simulate(lost, system(lost))
    with pytest.raises(ConfigError, match="'b' is mapped on no block of 1"):
        simulate(tasks, system(tasks, runs_on={"a": 0, "b": 1}))
    with pytest.raises(ConfigError, match="a bus from 0 to 0"):
        system(tasks, processors=(("big", 1.0, 1),))
    with pytest.raises(ConfigError, match="needs a processor"):
        system(tasks, memories=())
    with pytest.raises(ConfigError, match="at least a byte"):
        system(tasks, buses=(0,))
