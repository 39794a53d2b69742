import queue

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import BusyError, ConfigError, DataError
from sharpen.models import generate
from sharpen.models.decode import prepare_for_inference
from sharpen.serve.admission import QueueLimits
from sharpen.serve.engine import Engine
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.worker import Worker
from small_models import byte_tokenizer, small_model

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


def new_engine(**settings):
    settings = {"eos_ids": frozenset({2}), **settings}
    return Engine(prepare_for_inference(small_model()), byte_tokenizer(), **settings)


class Box:
    """Collects the pieces of a request."""

    def __init__(self):
        self.pieces = []

    def __call__(self, piece):
        self.pieces.append(piece)

    @property
    def ids(self):
        return [token for piece in self.pieces for token in piece.ids]

    @property
    def reason(self):
        return self.pieces[-1].finish_reason


class Broken:
    """A model that fails in every round."""

    def __init__(self, model):
        self.spec = model.spec

    def states(self, parts, cache):
        raise RuntimeError("no memory")


@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, 6),
            st.lists(st.integers(3, 60), min_size=1, max_size=8),
            st.integers(1, 7),
            st.booleans(),
        ),
        min_size=1,
        max_size=7,
    ),
    max_batch=st.integers(1, 4),
)
def test_tokens_do_not_depend_on_who_else_is_there_or_when(arrivals, max_batch):
    def params(count, sampled):
        if sampled:
            return SamplingParams(seed=count, max_tokens=count, ignore_eos=True)
        return SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)

    together, boxes = new_engine(max_batch=max_batch), []
    waiting = sorted(enumerate(arrivals), key=lambda pair: pair[1][0])
    moment = 0
    found = {}
    while waiting or together.num_running or together.num_waiting:
        while waiting and waiting[0][1][0] <= moment:
            index, (_, prompt, count, sampled) = waiting.pop(0)
            found[index] = Box()
            together.submit(prompt, params(count, sampled), found[index])
        together.step()
        assert together.num_running <= max_batch
        moment += 1
    for index, (_, prompt, count, sampled) in enumerate(arrivals):
        alone, box = new_engine(), Box()
        alone.submit(prompt, params(count, sampled), box)
        alone.run()
        boxes.append(box)
        assert found[index].ids == box.ids
        assert len(box.ids) == count
        assert box.reason == "length"


def test_greedy_is_the_plain_loop():
    engine, boxes = new_engine(), [Box(), Box()]
    prompts = [[5, 6, 7], [8]]
    for prompt, box in zip(prompts, boxes, strict=True):
        engine.submit(prompt, GREEDY, box)
    engine.run()
    plain = generate(small_model(), prompts, max_new_tokens=8)
    assert [box.ids for box in boxes] == [one.ids for one in plain]


def test_end_of_sequence_and_stop_tokens_end_a_request():
    whole = Box()
    engine = new_engine()
    engine.submit([5, 6, 7], GREEDY, whole)
    engine.run()
    stop = whole.ids[3]
    cut = whole.ids[: whole.ids.index(stop)]
    by_param, by_model = Box(), Box()
    engine.submit(
        [5, 6, 7], SamplingParams(temperature=0, max_tokens=8, stop_token_ids=(stop,)), by_param
    )
    engine.run()
    engine.eos_ids = frozenset({stop})
    engine.submit([5, 6, 7], SamplingParams(temperature=0, max_tokens=8), by_model)
    engine.run()
    assert by_param.ids == by_model.ids == cut
    assert by_param.reason == by_model.reason == "stop"


def test_stop_tokens_wait_for_min_tokens():
    box = Box()
    engine = new_engine(eos_ids=frozenset(range(304)) - {9})
    engine.submit([5], SamplingParams(temperature=0, max_tokens=8, min_tokens=3), box)
    engine.run()
    assert box.ids == [9, 9, 9]
    assert box.reason == "stop"


def test_logprobs_are_those_of_the_model():
    model, box = small_model(), Box()
    engine = new_engine()
    engine.submit([5, 6], SamplingParams(temperature=1.5, seed=0, max_tokens=3, logprobs=2), box)
    engine.run()
    logprobs = [one for piece in box.pieces for one in piece.logprobs]
    assert [one.id for one in logprobs] == box.ids
    text = torch.tensor([[5, 6, *box.ids]])
    with torch.no_grad():
        expected = torch.log_softmax(model(text)[0, 1:-1].double(), -1)
    for row, one in zip(expected, logprobs, strict=True):
        assert one.logprob == pytest.approx(float(row[one.id]), abs=1e-5)
        values, ids = row.topk(2)
        assert [i for i, _, _ in one.top] == ids.tolist()
        assert [value for _, _, value in one.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_cancelled_requests_leave_and_the_others_go_on():
    engine = new_engine(max_batch=2)
    boxes = [Box() for _ in range(4)]
    sequences = [engine.submit([5 + i], GREEDY, box) for i, box in enumerate(boxes)]
    engine.step()
    engine.cancel(sequences[0])
    engine.cancel(sequences[3])
    engine.run()
    assert [box.reason for box in boxes] == ["cancelled", "length", "length", "cancelled"]
    plain = generate(small_model(), [[6], [7]], max_new_tokens=8)
    assert [boxes[1].ids, boxes[2].ids] == [one.ids for one in plain]


def test_a_full_queue_refuses():
    engine = new_engine(max_batch=1, limits=QueueLimits(requests=1))
    engine.submit([5], GREEDY, Box())
    engine.submit([5], GREEDY, Box())
    with pytest.raises(BusyError, match="already wait"):
        engine.submit([5], GREEDY, Box())
    engine.run()
    engine.submit([5], GREEDY, Box())


def test_a_round_has_so_many_tokens_at_most():
    engine = new_engine(max_batch=4, max_batched_tokens=20)
    boxes = [Box() for _ in range(3)]
    for start, box in enumerate(boxes):
        engine.submit(list(range(3 + start, 15 + start)), GREEDY, box)
    engine.step()
    assert [s.num_computed for s in engine.scheduler.running] == [12, 8]
    engine.run()
    for start, box in enumerate(boxes):
        (plain,) = generate(small_model(), [list(range(3 + start, 15 + start))], max_new_tokens=8)
        assert box.ids == plain.ids


def test_a_failing_round_ends_its_requests_and_the_engine_goes_on():
    engine = new_engine()
    model, good = engine.model, Box()
    boxes = [Box(), Box()]
    for box in boxes:
        engine.submit([5], GREEDY, box)

    engine.model = Broken(model)
    with pytest.raises(RuntimeError, match="no memory"):
        engine.step()
    assert [box.reason for box in boxes] == ["error", "error"]
    assert "no memory" in boxes[0].pieces[-1].error
    engine.model = model
    engine.submit([5], GREEDY, good)
    engine.run()
    assert good.reason == "length"


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], GREEDY, "empty"),
        ([304], GREEDY, "outside"),
        ([5] * 250, GREEDY, "context holds"),
        ([5], SamplingParams(stop_token_ids=(999,), max_tokens=1), "stop_token_ids"),
        ([5], SamplingParams(logit_bias={-1: 1.0}, max_tokens=1), "logit_bias"),
    ],
)
def test_requests_that_cannot_run_are_refused(prompt, params, message):
    with pytest.raises(DataError, match=message):
        new_engine().submit(prompt, params, Box())


@pytest.mark.parametrize("settings", [{"max_batch": 0}, {"max_context": 0}, {"max_context": 999}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        new_engine(**settings)


def test_a_worker_runs_requests_and_survives_a_failure(caplog):
    engine = new_engine()
    worker, pieces, model = Worker(engine), queue.Queue(), engine.model

    def until(reason):
        while pieces.get(timeout=30).finish_reason != reason:
            continue

    try:
        engine.model = Broken(model)
        worker.submit([5], GREEDY, pieces.put)
        until("error")
        engine.model = model
        worker.submit([5], GREEDY, pieces.put)
        until("length")
        sequences = worker.submit([5], SamplingParams(max_tokens=200), pieces.put)
        worker.cancel(sequences)
        until("cancelled")
    finally:
        worker.close()
    assert "a round of the engine failed" in caplog.text


@given(
    prompts=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=6
    ),
    max_batched_tokens=st.sampled_from([7, 16, 64]),
    blocks=st.integers(13, 24),
    prefix_caching=st.booleans(),
)
def test_parts_known_prefixes_and_preemption_change_nothing(
    prompts, max_batched_tokens, blocks, prefix_caching
):
    """Small caches, small rounds and shared prompts against the plain loop."""
    size = 4 * 2 * 2 * 2 * 16 * 4  # a block of 4 tokens of the small model
    engine = new_engine(
        max_batch=4,
        max_batched_tokens=max_batched_tokens,
        block_size=4,
        cache_bytes=blocks * size,
        prefix_caching=prefix_caching,
    )
    assert engine.scheduler.pool.count == blocks
    boxes = []
    for start, length, count in prompts:
        ids = [(7 * start + i) % 50 + 3 for i in range(length)]
        boxes.append((ids, count, Box()))
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        engine.submit(ids, params, boxes[-1][2])
        engine.step()
    engine.run()
    for ids, count, box in boxes:
        (plain,) = generate(small_model(), [ids], max_new_tokens=count)
        assert box.ids == plain.ids
    assert engine.scheduler.pool.num_used == 0
    if not prefix_caching and not engine.scheduler.num_preemptions:
        assert engine.scheduler.prefix_hits == 0  # what gave way may find its own again


def test_a_conversation_goes_on_from_what_is_known():
    engine, box = new_engine(block_size=4), Box()
    prompt = list(range(3, 40))
    engine.submit(prompt, GREEDY, box)
    engine.run()
    engine.submit([*prompt, *box.ids, 5, 6], GREEDY, Box())
    engine.run()
    assert engine.scheduler.prefix_hits == (len(prompt) + len(box.ids) - 1) // 4 * 4
    engine.submit(prompt, SamplingParams(max_tokens=1, cache_salt="another tenant"), Box())
    before = engine.scheduler.prefix_hits
    engine.run()
    assert engine.scheduler.prefix_hits == before


@pytest.mark.parametrize("temperature", [0, 1])
def test_continuations_of_one_prompt_compute_it_once(temperature):
    prompt = [5 + i % 50 for i in range(100)]
    params = SamplingParams(n=4, temperature=temperature, seed=3, max_tokens=6, ignore_eos=True)
    found, rounds = [], []
    for shares in (True, False):
        engine, pieces, counts = new_engine(prefix_caching=shares), [], []
        engine.on_step = counts.append
        engine.submit(prompt, params, pieces.append)
        engine.run()
        assert engine.scheduler.pool.num_used == 0
        found.append([[t for p in pieces if p.index == i for t in p.ids] for i in range(4)])
        rounds.append(counts)
    assert found[0] == found[1]
    assert rounds[0][:2] == [100, 1 + 3 * (100 - 96)]
    assert rounds[1][0] == 4 * 100


def test_smaller_priorities_go_first():
    engine, order = new_engine(max_batch=1), []
    for name, priority in (("late", 1), ("early", 0), ("first", -1)):
        params = SamplingParams(temperature=0, max_tokens=1, priority=priority)
        engine.submit([5], params, lambda piece, name=name: order.append(name))
    engine.run()
    assert order == ["first", "early", "late"]


def test_a_request_larger_than_the_cache_is_refused():
    engine = new_engine(block_size=4, cache_bytes=4 * 4 * 2 * 2 * 2 * 16 * 4)
    with pytest.raises(DataError, match="give the cache more memory"):
        engine.submit([5] * 10, SamplingParams(max_tokens=8), Box())
    with pytest.raises(ConfigError, match="less than one block"):
        new_engine(cache_bytes=10)
