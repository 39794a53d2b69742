import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.plan import ScheduleSim, pipeline_schedule, sharded_schedule
from sharpen.plan.layout_cost import pass_seconds

seconds = st.floats(0.01, 10)


def test_a_stream_keeps_its_order_and_waits_for_others() -> None:
    sim = ScheduleSim()
    sim.add("load", "network", 2)
    sim.add("work", "compute", 3, after=["load"])
    sim.add("load more", "network", 4)
    sim.add("work more", "compute", 1, after=["load more"])
    done = sim.run()
    assert [(s.start_s, s.end_s) for s in done.spans] == [(0, 2), (2, 5), (2, 6), (6, 7)]
    assert (done.end_s, done.busy_s("compute"), done.idle_s("compute")) == (7, 4, 3)
    assert done.trace()[1] == {
        "name": "work",
        "ph": "X",
        "pid": 0,
        "tid": "compute",
        "ts": 2e6,
        "dur": 3e6,
    }
    assert ScheduleSim().run().end_s == 0


def test_tasks_may_wait_for_tasks_added_later() -> None:
    sim = ScheduleSim()
    sim.add("second", "a", 1, after=["first"])
    sim.add("first", "b", 5)
    assert sim.run().end_s == 6


def test_mistakes_are_named() -> None:
    sim = ScheduleSim()
    sim.add("x", "a", 1, after=["y"])
    with pytest.raises(ConfigError, match="'x' waits for 'y', unknown"):
        sim.run()
    sim.add("y", "a", 1)
    with pytest.raises(ConfigError, match="wait for each other and never start: x"):
        sim.run()
    with pytest.raises(ConfigError, match="there is a task 'x' already"):
        sim.add("x", "a", 1)
    with pytest.raises(ConfigError, match="it must be at least 0"):
        sim.add("z", "a", -1)


@given(
    stages=st.integers(1, 6),
    rounds=st.integers(1, 4),
    chunks=st.integers(1, 4),
    forward=seconds,
    backward=seconds,
)
def test_a_pipeline_idles_for_its_closed_form(
    stages: int, rounds: int, chunks: int, forward: float, backward: float
) -> None:
    batches = stages * rounds
    done = pipeline_schedule(stages, batches, chunks=chunks, forward_s=forward, backward_s=backward)
    work = batches * (forward + backward)
    assert done.end_s == pytest.approx(work * (1 + (stages - 1) / (chunks * batches)))
    for stage in range(stages):
        assert done.busy_s(f"stage {stage}") == pytest.approx(work)


def test_few_micro_batches_without_chunks_follow_the_same_form() -> None:
    done = pipeline_schedule(4, 2, forward_s=1, backward_s=2)
    assert done.end_s == 2 * 3 * (1 + 3 / 2)


def test_sending_between_stages_lengthens_filling_and_draining() -> None:
    quick = pipeline_schedule(4, 8, forward_s=1, backward_s=2)
    slow = pipeline_schedule(4, 8, forward_s=1, backward_s=2, send_s=0.1)
    assert slow.end_s >= quick.end_s + 2 * 3 * 0.1 - 1e-9


def test_a_pipeline_needs_whole_rounds_for_chunks() -> None:
    with pytest.raises(ConfigError, match=r"micro_batches=6 must be a multiple.*choose 8"):
        pipeline_schedule(4, 6, chunks=2, forward_s=1, backward_s=2)
    with pytest.raises(ConfigError, match=r"stages=0"):
        pipeline_schedule(0, 6, forward_s=1, backward_s=2)


@given(layers=st.integers(1, 12), forward=seconds, backward=seconds, gather=seconds, reduce=seconds)
def test_without_overlap_a_pass_is_the_sum(
    layers: int, forward: float, backward: float, gather: float, reduce: float
) -> None:
    times = {
        "forward_s": forward,
        "backward_s": backward,
        "gather_s": gather,
        "reduce_s": reduce,
        "overlap": 0.0,
    }
    total = layers * (forward + backward + 2 * gather + reduce)
    assert sharded_schedule(layers, **times).end_s == pytest.approx(total)  # type: ignore[arg-type]
    assert pass_seconds(layers, **times) == pytest.approx(total)


@given(
    layers=st.integers(2, 12),
    forward=seconds,
    backward=seconds,
    gather=seconds,
    reduce=seconds,
    overlap=st.floats(0, 1),
)
def test_the_closed_form_is_above_the_simulation_by_at_most_a_layer(
    layers: int, forward: float, backward: float, gather: float, reduce: float, overlap: float
) -> None:
    times = {
        "forward_s": forward,
        "backward_s": backward,
        "gather_s": gather,
        "reduce_s": reduce,
        "overlap": overlap,
    }
    simulated = sharded_schedule(layers, **times).end_s  # type: ignore[arg-type]
    formula = pass_seconds(layers, **times)
    layer = forward + backward + 2 * gather + reduce
    assert abs(formula - simulated) <= layer + 1e-9


def test_what_hides_entirely_costs_its_first_gather_and_last_reduction() -> None:
    done = sharded_schedule(8, forward_s=1, backward_s=2, gather_s=0.5, reduce_s=0.25)
    assert done.end_s == pytest.approx(8 * 3 + 0.5 + 0.25)
    assert done.idle_s("compute") == pytest.approx(0.75)


def test_a_slow_network_takes_as_long_as_its_bytes() -> None:
    done = sharded_schedule(50, forward_s=1, backward_s=1, gather_s=4, reduce_s=4)
    assert done.end_s == pytest.approx(50 * 12, rel=0.02)


def test_exchanges_inside_layers_stop_computing() -> None:
    done = sharded_schedule(5, forward_s=1, backward_s=2, exchange_s=0.5)
    assert done.end_s == pytest.approx(5 * 3 + 10 * 0.5)
