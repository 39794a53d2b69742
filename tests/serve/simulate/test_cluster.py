import dataclasses
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, DataError
from sharpen.plan.serving.machines import MODELS, Link, Machine, machine
from sharpen.plan.serving.perf_model import ConstantPerfModel, MeasuredPerfModel
from sharpen.plan.serving.slo import SLO
from sharpen.plan.serving.traces import Trace, synthetic_trace
from sharpen.serve.simulate.batching import Job, WholeBatcher
from sharpen.serve.simulate.cluster import ClusterSim, Placed, SimConfig
from sharpen.serve.simulate.policies import POLICIES
from sharpen.serve.simulate.transfer import Transfer

WHOLE = SimConfig(batching="whole")
BATCHING = ("scheduled", "whole")


def constant(prompt_s=2.0, token_s=0.5, capacity=10_000, name="m"):
    return Machine(name=name, perf=ConstantPerfModel(prompt_s, token_s), kv_capacity=capacity)


def cluster(*homes, **settings):
    return [Placed(constant(**settings), home) for home in homes]


def rows(result):
    return [(job.first_s, job.second_s, job.last_s) for job in result.jobs]


def totals(result):
    found = Counter()
    for gap, count in result.gaps:
        found[gap] += count
    return found


@pytest.mark.parametrize("batching", BATCHING)
def test_a_request_alone_on_one_machine(batching):
    sim = ClusterSim(
        cluster("mixed"), "jsq", Trace((1.0,), (100,), (4,)), config=SimConfig(batching=batching)
    )
    result = sim.run()
    assert rows(result) == [(3.0, 3.5, 4.5)]
    assert result.gaps == [(0.5, 3)]
    assert result.iterations == 4
    assert result.busy_s == [3.5]


@pytest.mark.parametrize("batching", BATCHING)
def test_a_split_request_waits_for_its_keys_and_values_before_the_second_token(batching):
    transfer = Transfer(layers=4, kv_bytes=1.0, link=Link(bandwidth=100.0), overlap="none")
    sim = ClusterSim(
        cluster("prompt", "token"),
        "mixed_pool",
        Trace((1.0, 1.0), (100, 50), (4, 1)),
        transfer=transfer,
        config=SimConfig(batching=batching),
    )
    result = sim.run()
    # The first prompt's 100 bytes take a second; the other prompt has no second token.
    assert rows(result) == [(3.0, 4.5, 5.5), (5.0, -1.0, 5.0)]
    assert totals(result) == {0.5: 2, 1.5: 1}
    table = result.table()
    assert [row["second_token"] for row in table] == [1.5, None]
    assert [(row["prompt_machine"], row["token_machine"]) for row in table] == [(0, 1), (0, 1)]
    assert all(one.reserved_tokens == one.pending_tokens == 0 for one in sim.machines)


def test_a_prompt_cuts_a_run_of_tokens_at_its_next_end():
    # Whole prompts first: tokens at 2.5, 3.0, 3.5; the arrival at 3.1 waits until 3.5.
    result = ClusterSim(
        cluster("mixed"), "jsq", Trace((0.0, 3.1), (10, 10), (6, 2)), config=WHOLE
    ).run()
    assert rows(result) == [(2.0, 2.5, 6.0), (5.5, 6.0, 6.0)]
    assert totals(result) == {0.5: 5, 2.0: 1}


def test_prompts_preempt_tokens_but_not_twice_in_a_row_after_so_often():
    # Prompts of 2048 leave no room for tokens, and after four of them a token leaves none for one.
    trace = Trace((0.0, *[2.1] * 8), (10, *[2048] * 8), (5, *[1] * 8))
    sim = ClusterSim(cluster("mixed", capacity=100_000), "jsq", trace, config=WHOLE)
    result = sim.run()
    assert totals(result) == {0.5: 1, 4 * 2.0 + 0.5: 1, 2.0 + 0.5: 2}
    assert result.jobs[0].preemptions == 6


def test_the_mean_wait_of_a_queue_with_constant_service_is_that_of_md1():
    # M/D/1: rho s / (2 (1 - rho)).
    service, rho = 0.1, 0.6
    rng, now, arrivals = random.Random(7), 0.0, []
    for _ in range(60_000):
        now += rng.expovariate(rho / service)
        arrivals.append(now)
    trace = Trace(tuple(arrivals), (1,) * len(arrivals), (1,) * len(arrivals))
    one = cluster("mixed", prompt_s=service)
    config = SimConfig(batching="whole", max_batch_size=1)
    result = ClusterSim(one, "jsq", trace, config=config).run()
    wait = statistics.mean(result.ttft_s()) - service
    assert wait == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.03)


def test_one_that_waits_for_memory_does_not_stop_the_one_that_holds_it():
    batcher = WholeBatcher(ConstantPerfModel(2.0, 0.5), 400, max_batch_tokens=256)
    here, moved = Job(1, 1.0, 202, 30), Job(0, 0.0, 139, 30, split=True, done=1)
    batcher.add_prompt(here)
    batcher.finish(batcher.start(1.0), 1.0, [])
    batcher.add_tokens(moved)  # it came first, and there is a token too little for it
    now = 3.0
    while (run := batcher.start(now)) is not None:
        batcher.finish(run, now, [])
        now += run.seconds * run.repeat
    assert (here.done, moved.done) == (30, 30)
    assert here.last_s < moved.second_s
    assert (batcher.used, batcher.num_jobs, batcher.waiting) == (0, 0, False)


REQUESTS = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 300), st.integers(1, 30)), min_size=1, max_size=25
)
TRACES = REQUESTS.map(Trace.of)


@settings(max_examples=40, deadline=None)
@given(
    TRACES,
    st.sampled_from(POLICIES),
    st.sampled_from(BATCHING),
    st.integers(400, 2000),
)
def test_every_request_is_done_once_and_nothing_is_held_after(trace, policy, batching, capacity):
    perf = MeasuredPerfModel([(1, 0.01), (100, 0.2)], [(1, 0.01), (20, 0.03)], context_s=1e-6)
    one = Machine(name="m", perf=perf, kv_capacity=capacity)
    machines = [Placed(one, home) for home in ("prompt", "token", "token")]
    transfer = Transfer(layers=4, kv_bytes=10.0, link=Link(bandwidth=1e5))
    config = SimConfig(batching=batching, max_batch_tokens=256, max_batch_size=16, block_size=16)

    def simulate(**changes):
        settings = dataclasses.replace(config, **changes)
        sim = ClusterSim(machines, policy, trace, transfer=transfer, config=settings, seed=5)
        return sim, sim.run()

    sim, result = simulate()
    assert [job.done for job in result.jobs] == list(trace.output_tokens)
    for job in result.jobs:
        assert job.arrival_s < job.first_s <= job.last_s
    gaps = sum(count for _, count in result.gaps)
    assert gaps == sum(trace.output_tokens) - len(trace)
    seconds = sum(gap * count for gap, count in result.gaps)
    assert seconds == pytest.approx(sum(job.last_s - job.first_s for job in result.jobs))
    for one_machine in sim.machines:
        assert (one_machine.pending_tokens, one_machine.reserved_tokens) == (0, 0)
        assert (one_machine.num_jobs, one_machine.foreign, one_machine.waiting) == (0, 0, False)
        used = (
            one_machine.batcher.used
            if batching == "whole"
            else one_machine.batcher.scheduler.pool.num_used
        )
        assert used == 0
    assert result.table() == simulate()[1].table()  # deterministic


def untied(requests):
    """The same, so that no request comes just when an iteration ends: rounding decides that."""
    return Trace.of([(at + i * 1e-4 * 2**0.5, *rest) for i, (at, *rest) in enumerate(requests)])


@settings(max_examples=25, deadline=None)
@given(REQUESTS.map(untied), st.integers(400, 1000))
def test_taking_equal_iterations_together_changes_nothing(trace, capacity):
    one = Machine(name="m", perf=ConstantPerfModel(0.05, 0.01), kv_capacity=capacity)
    results = [
        ClusterSim(
            [Placed(one, "mixed")],
            "jsq",
            trace,
            config=SimConfig(max_batch_tokens=128, max_batch_size=16, block_size=16, skip=skip),
        ).run()
        for skip in (True, False)
    ]
    together, apart = results
    assert together.iterations == apart.iterations
    for a, b in zip(together.jobs, apart.jobs, strict=True):
        assert a.first_s == pytest.approx(b.first_s)
        assert a.last_s == pytest.approx(b.last_s)
        assert a.preemptions == b.preemptions


def test_splitting_keeps_long_prompts_out_of_the_way_of_tokens():
    model = MODELS["llama2-70b"]
    h100 = machine("dgx-h100", model)
    trace = synthetic_trace("conv", rate=8, seconds=40, seed=1)
    transfer = Transfer(layers=model.num_layers, kv_bytes=model.kv_bytes)

    def run(homes, policy):
        placed = [Placed(h100, home) for home in homes]
        return ClusterSim(placed, policy, trace, transfer=transfer, config=WHOLE).run()

    split = run(("prompt", "token"), "mixed_pool").summary()
    mixed = run(("mixed", "mixed"), "token_jsq").summary()
    assert split["gap"]["p99"] < mixed["gap"]["p99"] / 2
    assert split["requests"] == mixed["requests"] == len(trace)


def test_slowdowns_are_against_the_request_alone():
    perf = ConstantPerfModel(2.0, 0.5)
    trace = Trace((0.0, 0.0), (10, 10), (3, 1))
    result = ClusterSim(
        cluster("mixed"), "jsq", trace, config=SimConfig(batching="whole", max_batch_size=1)
    ).run()
    found = result.slowdowns(perf).values
    # The prompts go one after the other, then the tokens: 2, (2 + 2) / 2 to the first token.
    assert found["ttft"][0] == pytest.approx(1.5)
    assert found["tbt"][0] == pytest.approx((2.0 + 0.5 + 0.5) / 2 / 0.5)
    assert result.goodput(perf, SLO({"ttft": (2.0, 2.0, 2.0)})) == pytest.approx(2 / 5.0)
    assert result.goodput(perf, SLO({"ttft": (1.0, 1.0, 1.0)})) == pytest.approx(1 / 5.0)


def test_what_cannot_work_is_refused():
    trace = Trace((0.0,), (100,), (10,))
    with pytest.raises(ConfigError, match=r"no policy 'jqs'\. Did you mean 'jsq'"):
        ClusterSim(cluster("mixed"), "jqs", trace)
    with pytest.raises(ConfigError, match="at least one prompt and one token machine"):
        ClusterSim(cluster("prompt"), "mixed_pool", trace)
    with pytest.raises(ConfigError, match="at least one machine"):
        ClusterSim([], "jsq", trace)
    with pytest.raises(ConfigError, match="batching='new'"):
        ClusterSim(cluster("mixed"), "jsq", trace, config=SimConfig(batching="new"))
    for batching in BATCHING:
        small = cluster("mixed", capacity=64)
        with pytest.raises(DataError, match="tokens"):
            ClusterSim(small, "jsq", trace, config=SimConfig(batching=batching)).run()
