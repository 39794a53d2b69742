"""The server under strangers: requests made from its own description, and a long crowd."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings

from serving import running
from small_models import save_small_model

BLOCK_BYTES = 16 * 2 * 2 * 2 * 16 * 4  # 16 tokens of the small model


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_no_request_that_the_description_allows_or_forbids_is_a_failure_of_ours(tmp_path):
    import schemathesis

    folder = save_small_model(tmp_path / "tiny")
    with running(folder, allow_runtime_lora=True) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        operations = [one.ok() for one in schema.get_all_operations()]
        assert {one.path for one in operations} >= {"/v1/chat/completions", "/v1/embeddings"}
        for operation in operations:
            # Of one without a body nothing can be wrong.
            for mode in ("POSITIVE", "NEGATIVE") if operation.method == "post" else ("POSITIVE",):
                strategy = operation.as_strategy(
                    generation_mode=getattr(schemathesis.GenerationMode, mode)
                )
                try_all(operation.path, strategy)
        assert httpx.get(f"{server.url}/health").status_code == 200
        deadline = time.monotonic() + 60
        while server.state.llm.engine.scheduler.pool.num_used:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def try_all(path, strategy):
    # The model's name is what opens the way to all other fields.
    @settings(max_examples=25, suppress_health_check=list(HealthCheck), database=None)
    @given(case=strategy, named=...)
    def check(case, named: bool):
        if named and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "tiny"
        answer = case.call(timeout=60)
        assert answer.status_code < 500, (path, case.body, answer.text)

    check()


@pytest.mark.slow
def test_a_long_crowd_leaves_nothing_behind(tmp_path):
    """500 requests of 32 clients, of which a fifth go away; a pool that is far too small."""
    folder = save_small_model(tmp_path / "tiny", max_positions=512)
    engine = {"max_batch": 8, "kv_cache_memory": 40 * BLOCK_BYTES, "max_batched_tokens": 64}
    # One pool of connections: each would load the certificates of the world again.
    with httpx.Client(timeout=120) as connections, running(folder, engine=engine) as server:
        threads, process = threading.active_count(), psutil.Process()
        statuses, before = [], 0

        def client(number):
            chance = random.Random(number)
            huge = chance.random() < 0.1
            body = {
                "model": "tiny",
                "prompt": f"{number % 7} " * (180 if huge else chance.randint(1, 20)),
                "max_tokens": chance.randint(1, 60),
                "ignore_eos": True,
                "seed": number,
                "n": chance.choice([1, 1, 1, 2]),
                "stream": chance.random() < 0.5,
                "priority": chance.randint(0, 2),
            }
            if chance.random() < 0.1:
                body["guided_regex"] = "[a-z ]{5,200}"
            url, leaves = f"{server.url}/v1/completions", chance.random() < 0.2
            try:
                with connections.stream("POST", url, json=body) as answer:
                    statuses.append(answer.status_code)
                    lines = answer.iter_lines()
                    for count, _ in enumerate(lines, start=1):
                        if leaves and count > chance.randint(0, 20):
                            lines.close()
                            return
            except httpx.HTTPError as error:
                statuses.append(repr(error))

        def settled():
            deadline = time.monotonic() + 120
            served = server.state.llm.engine
            while served.num_running or served.num_waiting:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert served.scheduler.pool.num_used == 0
            assert not served.admission._waiting

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(client, range(200)))
            settled()
            before = process.memory_info().rss
            list(pool.map(client, range(200, 500)))
            settled()
        assert set(statuses) == {200}
        assert len(statuses) == 500
        assert server.state.llm.engine.scheduler.num_preemptions > 0
        assert process.memory_info().rss < 1.05 * before
        assert threading.active_count() <= threads + 16
