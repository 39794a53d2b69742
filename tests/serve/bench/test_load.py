import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence

import pytest

from sharpen.core.errors import ConfigError
from sharpen.models.decode import prepare_for_inference
from sharpen.serve.bench.load import Arrivals, EngineTarget, Lengths, Limits, run_load
from sharpen.serve.engine import Engine
from sharpen.serve.worker import Worker
from small_models import byte_tokenizer, small_model


@pytest.mark.parametrize(("text", "variation"), [("poisson:4", 1.0), ("gamma:4:3", 3.0)])
def test_gaps_have_the_asked_mean_and_spread(text: str, variation: float) -> None:
    times = Arrivals.parse(text).times(20_000, seed=1)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0.0
    assert min(gaps) >= 0
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.05)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.05)


def test_all_at_once() -> None:
    assert Arrivals.parse("inf").times(3) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "text", ["poisson", "poisson:0", "gamma:1", "inf:3", "uniform:1", "gamma:1:x"]
)
def test_unknown_arrivals_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write inf, poisson:RATE or gamma:RATE:CV"):
        Arrivals.parse(text)


def test_prompts_share_a_head() -> None:
    prompts = Lengths.parse("random:in=8,out=2,shared=3").prompts(4, 50)
    assert len({tuple(p[:3]) for p in prompts}) == 1
    assert len({tuple(p) for p in prompts}) == 4
    assert all(len(p) == 8 and max(p) < 50 for p in prompts)
    for text in ("random:in=0", "sharegpt", "random:in=3,shared=4", "random:x=1"):
        with pytest.raises(ConfigError, match="is no data set"):
            Lengths.parse(text)


@pytest.fixture
def target() -> Iterator[EngineTarget]:
    worker = Worker(Engine(prepare_for_inference(small_model()), byte_tokenizer(), max_batch=4))
    try:
        yield EngineTarget(worker)
    finally:
        worker.close()


def test_every_request_is_answered_and_times_are_in_order(target: EngineTarget) -> None:
    prompts = Lengths.parse("random:in=8,out=6").prompts(10, 60)
    found = run_load(target, prompts, 6, Arrivals.parse("poisson:200"))
    assert (found.requests, found.failed, found.error) == (10, 0, "")
    assert found.tokens_per_s == pytest.approx(60 / found.duration_s)
    for one in found.percentiles.values():
        assert 0 < one["p50"] <= one["p90"] <= one["p99"]
    assert found.percentiles["ttft"]["p50"] <= found.percentiles["e2e"]["p50"]
    assert found.goodput <= found.requests / found.duration_s + 1e-9


def test_failures_are_counted_and_limits_decide_what_is_good() -> None:
    class Timed:
        """The first token after 20 ms, the next 10 ms later; an odd prompt fails."""

        async def answer(self, prompt: Sequence[int], count: int, moments: list[float]) -> None:
            if prompt[0] % 2:
                raise RuntimeError("no more memory")
            for wait in (0.02, *[0.01] * (count - 1)):
                await asyncio.sleep(wait)
                moments.append(time.perf_counter())

    prompts = [[2], [4], [5], [6]]
    found = run_load(Timed(), prompts, 3, Arrivals(), limits=Limits(ttft=10, tpot=10))
    assert (found.requests, found.failed) == (4, 1)
    assert "no more memory" in found.error
    assert found.goodput == pytest.approx(3 / found.duration_s)
    assert found.percentiles["ttft"]["p50"] >= 0.02
    assert found.percentiles["tpot"]["p50"] >= 0.01
    strict = run_load(Timed(), prompts, 3, Arrivals(), limits=Limits(ttft=0.001, tpot=10))
    assert strict.goodput == 0
    one_by_one = run_load(Timed(), prompts, 3, Arrivals(), concurrency=1)
    assert one_by_one.duration_s >= 3 * 0.04
    assert one_by_one.percentiles["ttft"]["p99"] < 3 * 0.04  # a client waits outside
