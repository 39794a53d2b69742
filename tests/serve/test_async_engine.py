import asyncio
import threading
import time

import pytest

from sharpen.core.errors import ConfigError, DataError, ExecutionError
from sharpen.serve import LLM, AsyncEngine, Grammar, SamplingParams
from sharpen.serve.async_engine import Job
from small_models import save_small_model

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, dtype="float32")


def run(folder, work):
    async def main():
        async with AsyncEngine.load(folder, dtype="float32", max_batch=4) as engine:
            await work(engine)
            assert not engine.llm.engine.num_waiting

    asyncio.run(main())


def test_many_tasks_get_their_own_pieces(folder, llm):
    async def text(engine, prompt):
        return "".join([piece.text async for piece in engine.generate(prompt, GREEDY)])

    async def work(engine):
        prompts = [f"prompt {i}" for i in range(9)]
        texts = await asyncio.gather(*(text(engine, prompt) for prompt in prompts))
        assert texts == [output.text for output in llm.generate(prompts, GREEDY)]

    run(folder, work)


def test_conversations_grammars_and_vectors(folder, llm):
    hi = [{"role": "user", "content": "hi"}]

    async def work(engine):
        pieces = [piece async for piece in engine.chat(hi, GREEDY)]
        assert "".join(piece.text for piece in pieces) == llm.chat(hi, GREEDY).text
        assert pieces[-1].finish_reason == "length"
        params = SamplingParams(n=2, max_tokens=9, grammar=Grammar.choice(["yes", "no"]))
        texts = ["", ""]
        async for piece in engine.generate("a", params):
            texts[piece.index] += piece.text
        assert set(texts) <= {"yes", "no"}
        vector = await engine.embed("some text", dimensions=5)
        assert vector.embedding == pytest.approx(
            llm.embed("some text", dimensions=5).embedding, abs=1e-5
        )

    run(folder, work)


def test_a_round_wakes_the_loop_once(folder):
    async def work(engine):
        loop, rounds = asyncio.get_running_loop(), []
        engine.llm.engine.on_step = rounds.append
        wake, wakes = loop.call_soon_threadsafe, []

        def count(call, *arguments, **context):
            if threading.current_thread().name == "sharpen-engine":
                wakes.append(len(arguments[0]))
            return wake(call, *arguments, **context)

        loop.call_soon_threadsafe = count
        jobs = [Job(engine._worker) for _ in range(4)]
        for job in jobs:
            job.submit([5, 6], GREEDY)
        for job in jobs:
            assert [piece async for _, piece in job.pieces()][-1].finish_reason == "length"
            assert job.ended
            assert await job.take() == []
        assert len(wakes) <= len(rounds)
        assert max(wakes) == 4

    run(folder, work)


def test_waiting_for_pieces_may_end_without_any(folder):
    async def work(engine):
        model = engine.llm.engine.model
        states = model.states

        def slow(*arguments):
            time.sleep(0.1)
            return states(*arguments)

        model.states = slow
        job = Job(engine._worker)
        job.submit([5, 6], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
        assert await job.take(0.01) == []
        assert not job.ended
        assert [piece.finish_reason for _, piece in await job.take()] == ["length"]
        assert job.ended

    run(folder, work)


def test_leaving_the_loop_stops_the_work(folder):
    async def work(engine):
        long = SamplingParams(max_tokens=200, ignore_eos=True)
        stream = engine.generate("a", long)
        async for piece in stream:
            assert piece.ids
            break
        await stream.aclose()
        task = asyncio.create_task(anext(engine.generate("b", long)))
        await asyncio.sleep(0)
        task.cancel()
        for _ in range(200):
            if not engine.llm.engine.scheduler.busy:
                break
            await asyncio.sleep(0.01)
        assert engine.llm.engine.scheduler.pool.num_used == 0

    run(folder, work)


def test_failures_are_raised_where_they_are_awaited(folder):
    async def work(engine):
        with pytest.raises(DataError):
            await anext(engine.generate(""))
        with pytest.raises(ConfigError):
            await anext(
                engine.generate("a", SamplingParams(max_tokens=9, grammar=Grammar.regex("(")))
            )
        with pytest.raises(ConfigError):
            await engine.embed("a", dimensions=0)
        engine.llm.engine.model = type("Broken", (), {"spec": engine.llm.spec})()
        with pytest.raises(ExecutionError, match="generation failed"):
            await anext(engine.generate("a", GREEDY))
        with pytest.raises(ExecutionError, match="embedding failed"):
            await engine.embed("a")

    run(folder, work)
