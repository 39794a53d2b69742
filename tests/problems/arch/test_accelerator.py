"""The accelerator's counts against loops that are carried out, element by element."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sharpen as sh
from sharpen.core.errors import ConfigError
from sharpen.core.problem import Problem, evaluate
from sharpen.core.problem_names import find_problem
from sharpen.problems.arch import NETWORKS, Accelerator, Layer, accelerator_space, make
from sharpen.problems.arch.accelerator import cost_of, nest_of, words_of


def elements(layer: Layer, tensor: str, part: dict[str, range]) -> frozenset[tuple[int, ...]]:
    """The words of a tensor that a box of the loops touches."""
    if tensor == "weights":
        axes: tuple[Any, ...] = (part["K"], part["C"], range(layer.r), range(layer.s))
    elif tensor == "outputs":
        axes = (part["N"], part["K"], part["P"], part["Q"])
    else:
        rows = {p * layer.stride + r for p in part["P"] for r in range(layer.r)}
        columns = {q * layer.stride + s for q in part["Q"] for s in range(layer.s)}
        axes = (part["N"], part["C"], rows, columns)
    return frozenset(itertools.product(*axes))


class Level:
    """A buffer that holds one tile of each tensor, and counts what goes in and out."""

    def __init__(self) -> None:
        self.held: dict[str, frozenset[tuple[int, ...]]] = {}
        self.moved = dict.fromkeys(("weights", "inputs", "outputs"), 0)
        self.begun: set[tuple[int, ...]] = set()

    def need(self, tensor: str, wanted: frozenset[tuple[int, ...]]) -> None:
        if self.held.get(tensor) == wanted:
            return
        if tensor != "outputs":
            self.moved[tensor] += len(wanted)
        else:
            self.moved[tensor] += len(self.held.get(tensor, ()))  # written back
            self.moved[tensor] += len(wanted & self.begun)  # sums that go on
            self.begun |= wanted
        self.held[tensor] = wanted

    def flush(self) -> dict[str, int]:
        self.moved["outputs"] += len(self.held["outputs"])
        return self.moved


def interpret(
    layer: Layer, hardware: Accelerator
) -> tuple[dict[str, int], dict[str, int], int, int]:
    """Words over DRAM's bus and the buffer's, steps of the array, and multiplications."""
    nest = nest_of(layer, hardware)
    assert nest is not None
    dram, buffer = Level(), Level()
    done: set[tuple[int, ...]] = set()
    steps = 0
    for place in itertools.product(*(range(trips) for _, trips in nest.loops)):
        boxes: list[dict[str, range]] = [{}, {}]
        for name in "NKCPQ":
            tiles = [i for i, (n, _) in zip(place, nest.loops, strict=True) if n == name]
            start = tiles[0] * nest.buffer[name]
            boxes[0][name] = range(start, start + nest.buffer[name])
            start += tiles[1] * nest.array[name]
            boxes[1][name] = range(start, start + nest.array[name])
        for level, box in zip((dram, buffer), boxes, strict=True):
            for tensor in ("weights", "inputs", "outputs"):
                level.need(tensor, elements(layer, tensor, box))
        steps += 1
        for n, k, c, p, q in itertools.product(*(boxes[1][name] for name in "NKCPQ")):
            assert (n, k, c, p, q) not in done, "multiplied twice"
            done.add((n, k, c, p, q))
    return dram.flush(), buffer.flush(), steps, len(done) * layer.r * layer.s


LAYERS = st.builds(
    Layer,
    k=st.sampled_from([1, 2, 3, 4, 6]),
    c=st.sampled_from([1, 2, 4, 5]),
    p=st.sampled_from([1, 2, 4, 6]),
    q=st.sampled_from([1, 3, 4]),
    r=st.sampled_from([1, 2, 3]),
    s=st.sampled_from([1, 3]),
    stride=st.integers(1, 3),
    n=st.integers(1, 2),
)
HARDWARE = st.builds(
    Accelerator,
    pe_rows=st.sampled_from([1, 2, 4]),
    pe_cols=st.sampled_from([1, 2, 4]),
    rf_words=st.sampled_from([20, 64, 256]),
    dataflow=st.sampled_from(["weight", "output", "row"]),
    order=st.sampled_from(["KCPQ", "KPQC", "CKPQ", "CPQK", "PQKC", "PQCK"]),
    tile_k=st.sampled_from([1, 2, 4]),
    tile_c=st.sampled_from([1, 2, 4]),
    tile_p=st.sampled_from([1, 2, 4]),
    tile_q=st.sampled_from([1, 2, 4]),
)


@settings(max_examples=200)
@given(LAYERS, HARDWARE)
def test_words_and_steps_are_those_of_the_loops_carried_out(
    layer: Layer, hardware: Accelerator
) -> None:
    cost, nest = cost_of(layer, hardware), nest_of(layer, hardware)
    if cost is None or nest is None:
        assert layer.r > hardware.pe_rows or layer.r * layer.s * 2 + 1 > hardware.rf_words
        return
    dram, buffer, steps, macs = interpret(layer, hardware)
    assert cost.dram == dram
    assert cost.buffer == buffer
    assert macs == layer.macs == cost.macs == steps * nest.macs * nest.pes
    assert nest.pes <= hardware.pe_rows * hardware.pe_cols
    assert cost.cycles >= steps * nest.macs
    assert 0 < cost.utilization <= 1


def test_a_layer_by_hand() -> None:
    # A product [4, 2] x [2, 6], one buffer tile of K = 2, C = 2, P = 3, K outermost.
    layer = Layer(k=4, c=2, p=6)
    hardware = Accelerator(pe_rows=2, pe_cols=2, tile_k=2, tile_c=2, tile_p=3, order="KPQC")
    cost = cost_of(layer, hardware)
    assert cost is not None
    # Weights once; inputs for each of the two tiles in K; outputs once.
    assert cost.dram == {"weights": 8, "inputs": 2 * 12, "outputs": 24}
    assert cost.macs == 48
    turned = cost_of(layer, Accelerator(pe_rows=2, pe_cols=2, tile_k=2, tile_p=3, order="PQKC"))
    assert turned is not None
    # With P outermost, weights come for each of the two tiles in P, inputs once.
    assert turned.dram == {"weights": 2 * 8, "inputs": 12, "outputs": 24}


def test_split_sums_go_out_and_come_back() -> None:
    layer = Layer(k=2, c=4, p=3)
    hardware = Accelerator(tile_c=1, tile_k=2, tile_p=3, order="CKPQ")
    one = cost_of(layer, hardware)
    assert one is not None
    assert one.dram["outputs"] == 6  # one tile of them, which stays
    parts = cost_of(layer, Accelerator(tile_c=1, tile_k=1, tile_p=3, order="CKPQ"))
    assert parts is not None
    assert parts.dram["outputs"] == 3 * (2 * 8 - 2)


def test_energy_and_cycles_are_their_formulas() -> None:
    layer = NETWORKS["resnet-18"][1]
    hardware = Accelerator(buffer_kib=256, dram_words=2, buffer_words=4)
    cost = cost_of(layer, hardware)
    assert cost is not None
    nest = nest_of(layer, hardware)
    assert nest is not None
    dram, inside = sum(cost.dram.values()), sum(cost.buffer.values())
    energy = layer.macs * 5 + 200 * dram + 6 * math.sqrt(256 / 108) * (dram + inside)
    assert cost.energy == pytest.approx(energy)
    steps = math.prod(trips for _, trips in nest.loops)
    assert cost.cycles == max(steps * nest.macs, dram / 2, (dram + inside) / 4)
    assert 2 * sum(words_of(layer, nest.buffer).values()) <= 256 * 512


def test_multiplications_of_the_networks_are_the_published_ones() -> None:
    total = {
        name: sum(layer.repeat * layer.macs for layer in layers) / 1e9
        for name, layers in NETWORKS.items()
    }
    assert total["resnet-18"] == pytest.approx(1.81, abs=0.01)
    assert total["bert-base"] == pytest.approx(11.2, abs=0.1)
    # Weights of Llama-2 7B without its embedding: 6.74e9 - 0.13e9.
    assert total["llama-decode"] == pytest.approx(6.61, abs=0.01)


def test_more_of_everything_takes_no_more_time() -> None:
    small = Accelerator(pe_rows=8, pe_cols=8, dram_words=2)
    large = Accelerator(pe_rows=16, pe_cols=16, dram_words=16)
    for layer in NETWORKS["resnet-18"]:
        a, b = cost_of(layer, small), cost_of(layer, large)
        assert a is not None
        assert b is not None
        assert b.cycles <= a.cycles


def test_the_problem_scores_a_network_and_says_what_cannot_be() -> None:
    problem = make("accelerator-v0", workload="resnet-18")
    assert isinstance(problem, Problem)
    assert problem.space.cardinality == 35_831_808
    config = problem.space.default()
    feedback = evaluate(problem, config)
    cost = problem.simulate(config)
    assert cost is not None
    info = feedback.info
    assert info["energy"] == cost.energy * 1e-6
    assert info["latency"] == cost.cycles * 1e-3
    far = sum(info[m] / problem.targets[m] - 1 for m in ("energy", "latency"))
    assert feedback.objectives["reward"] == pytest.approx(1 / (1 + far))
    for other in problem.space.sample(60, seed=2):
        found = problem.evaluate(other)
        if found.status == "ok":
            assert found.info["energy"] >= problem.targets["energy"]
            assert found.info["latency"] >= problem.targets["latency"]
    wide = make("accelerator-v0", workload=[Layer(8, 8, 8, 8, 11, 11)])
    tight = {**config, "dataflow": "weight", "rf_words": 128}
    assert evaluate(wide, tight).status == "infeasible"


def test_a_limit_of_area_is_a_constraint() -> None:
    problem = find_problem("accelerator-v0", {"workload": "bert-base", "area": 3.0})
    study = sh.Study(problem, optimizer="ga", store="sqlite://", budget=sh.Budget(trials=80)).run()
    assert study.best.feedback is not None
    assert study.best.feedback.info["area"] <= 3.0
    assert study.best.value > evaluate(problem, problem.space.default()).objectives["reward"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workload": "resnet18"}, "no network 'resnet18'. Did you mean 'resnet-18'"),
        ({"workload": []}, "needs a layer"),
        ({"target": "power"}, "target='power' must be one of energy, latency, joint"),
        ({"area": 0.0}, "area=0.0"),
        ({"spec": "DDR3-1600"}, "no option 'spec'"),
        ({"targets": {"power": 1.0}}, "this target has energy, latency"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("accelerator-v0", **options)


def test_wrong_layers_and_hardware_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"k=0 must be at least 1 \(Layer\)"):
        Layer(0, 1, 1)
    with pytest.raises(ConfigError, match="pe_rows=0"):
        Accelerator(pe_rows=0)
    with pytest.raises(ConfigError, match="dataflow='input' must be one of weight"):
        Accelerator(dataflow="input")  # type: ignore[arg-type]
    assert all(Accelerator(**config) for config in accelerator_space().sample(20))
