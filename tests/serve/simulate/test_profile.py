import pytest

from sharpen.core.errors import ConfigError
from sharpen.models.decode import prepare_for_inference
from sharpen.serve.engine import Engine
from sharpen.serve.sampling import SamplingParams
from sharpen.serve.simulate.profile import profile_engine
from small_models import byte_tokenizer, small_model


class Counting:
    """A model that notes the parts of every pass."""

    def __init__(self):
        self.inner = prepare_for_inference(small_model())
        self.passes = []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def states(self, parts, cache):
        self.passes.append([(part.start, len(part.ids)) for part in parts])
        return self.inner.states(parts, cache)


def test_an_engine_is_measured_at_the_asked_sizes():
    model = Counting()
    engine = Engine(model, byte_tokenizer(), max_batch=4, max_batched_tokens=64)
    perf = profile_engine(engine, prompts=[8, 32], batches=[1, 4], context=10, repeats=3)
    assert perf.prompt.x == [8, 32] and perf.token.x == [1, 4]
    assert all(seconds > 0 for seconds in [*perf.prompt.y, *perf.token.y])
    assert perf.context == 10 and perf.context_s >= 0
    whole = [one for one in model.passes if one == [(0, 32)]]
    assert len(whole) == 3
    together = [one for one in model.passes if len(one) == 4 and {n for _, n in one} == {1}]
    assert {start for one in together for start, _ in one} >= {10, 11, 12, 40, 41, 42}
    assert engine.num_running == 0 and engine.scheduler.pool.num_used == 0


def test_defaults_cover_the_engine_and_a_busy_one_is_refused():
    engine = Engine(prepare_for_inference(small_model()), byte_tokenizer(), max_batch=3)
    perf = profile_engine(engine, repeats=1, context=16)
    assert perf.token.x == [1, 2, 3]
    assert perf.prompt.x == [16, 32, 64, 128, 255]
    with pytest.raises(ConfigError, match="too short for 4 x context=64"):
        profile_engine(engine, context=64)
    small = 2 * 2 * 2 * 16 * 16 * 4 * 6  # six blocks of 16 tokens
    tight = Engine(engine.model, byte_tokenizer(), max_batch=8, cache_bytes=small)
    with pytest.raises(ConfigError, match="8 sequences of 30 tokens do not run at the same time"):
        profile_engine(tight, prompts=[8], batches=[8], context=30, repeats=1)
    engine.submit([5], SamplingParams(max_tokens=2), lambda piece: None)
    with pytest.raises(ConfigError, match="is at work"):
        profile_engine(engine)
