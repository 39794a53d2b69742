import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError, FileFormatError
from sharpen.core.lm import (
    LM,
    Budget,
    BudgetExhausted,
    ChatRequest,
    ChatResponse,
    Prices,
    RequestError,
    Scripted,
    ServiceError,
    Spent,
    ThreadedEngine,
    Usage,
)
from sharpen.core.lm.budget import prompt_bound


class Told(ThreadedEngine):
    """Says what it is told to."""

    model = "told"

    def __init__(self, usage: Usage | None = None, error: Exception | None = None) -> None:
        self.capabilities: set[str] = set()
        self.usage, self.error, self.calls = usage, error, 0

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return ChatResponse(["x"], self.usage, ["stop"], "told")


def test_the_call_that_would_exceed_is_not_made() -> None:
    engine = Scripted(lambda request: "x")
    lm = LM(engine, budget=Budget(max_calls=3))
    assert [lm(str(i)) for i in range(3)] == ["x"] * 3
    with pytest.raises(BudgetExhausted, match=r"max_calls=3 is used up\. Raise it") as error:
        lm("3")
    assert error.value.limit == "max_calls"
    assert pickle.loads(pickle.dumps(error.value)).limit == "max_calls"
    assert len(engine.requests) == 3


def test_tokens_are_reserved_before_and_settled_after() -> None:
    budget = Budget(max_tokens=1000)
    engine = Told(Usage(prompt=10, completion=5))
    lm = LM(engine, budget=budget, max_tokens=100)
    most = prompt_bound(ChatRequest("Hi")) + 100
    while budget.spent.tokens + most <= 1000:
        before = budget.spent.tokens
        lm("Hi")
        assert budget.spent.tokens == before + 15
    with pytest.raises(BudgetExhausted, match="max_tokens=1,000 would be exceeded"):
        lm("Hi")
    assert budget.spent == Spent(calls=engine.calls, tokens=15 * engine.calls)


def test_a_reply_without_usage_counts_as_the_most_it_may_have_taken() -> None:
    budget = Budget(max_tokens=1000)
    lm = LM(Told(None), budget=budget, max_tokens=100)
    lm("Hi")
    assert budget.spent.tokens == prompt_bound(ChatRequest("Hi")) + 100
    assert (lm.usage.unknown, lm.usage.tokens, lm.usage.cost) == (1, 0, None)


@pytest.mark.parametrize(
    ("error", "is_free"),
    [
        (RequestError("no"), True),
        (ServiceError("down"), True),
        (ServiceError("timeout", may_have_cost=True), False),
        (RuntimeError("?"), False),
    ],
)
def test_failed_calls_count_where_they_may_have_been_worked_on(
    error: Exception, is_free: bool
) -> None:
    budget = Budget(max_tokens=1000)
    lm = LM(Told(error=error), budget=budget, max_tokens=100)
    with pytest.raises(type(error)):
        lm("Hi")
    most = prompt_bound(ChatRequest("Hi")) + 100
    assert budget.spent == (Spent() if is_free else Spent(calls=1, tokens=most))
    assert (lm.usage.calls, lm.usage.failed, lm.usage.unknown) == (1, 1, int(not is_free))


def test_cost_is_held_by_a_table_of_prices(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("told: {prompt: 1.0, completion: 2.0, cached: 0.5}\n")
    prices = Prices(tmp_path / "prices.yaml")
    usage = Usage(prompt=1_000_000, completion=500_000, cached=200_000)
    lm = LM(Told(usage), prices=prices)
    lm("Hi")
    assert lm.usage.cost == pytest.approx(0.8 + 0.1 + 1.0)
    request = ChatRequest("Hi", max_tokens=1000)
    most = (prompt_bound(request) * 1.0 + 1000 * 2.0) / 1e6
    budget = Budget(max_cost=1.5 * most)
    lm = LM(Told(Usage(prompt=1, completion=1000)), budget=budget, prices=prices, max_tokens=1000)
    lm("Hi")
    assert budget.spent.cost == pytest.approx((1 + 2000) / 1e6)
    with pytest.raises(BudgetExhausted, match="max_cost"):
        lm("Hi")


def test_an_unknown_cost_is_none_and_never_nothing() -> None:
    lm = LM(Scripted(["a"]), prices={"other": {"prompt": 1, "completion": 1}})
    lm("Hi")
    assert lm.usage.cost is None
    limited = LM(Scripted(["a"]), budget={"max_cost": 1.0}, max_tokens=5)
    with pytest.raises(ConfigError, match="does not list the model 'scripted'"):
        limited("Hi")


def test_no_call_begins_after_the_time_is_over() -> None:
    budget = Budget(max_seconds=1e-6)
    budget.reserve(0, 0.0)
    begun = time.monotonic()
    while time.monotonic() - begun < 1e-5:
        pass
    with pytest.raises(BudgetExhausted, match="max_seconds"):
        budget.reserve(0, 0.0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "needs one of max_calls"),
        ({"max_calls": 0}, "max_calls=0 must be positive"),
        ({"max_cost": float("nan")}, "max_cost=nan"),
        ({"calls": 3}, "has no 'calls'"),
        ({"max_calls": "3"}, "max_calls='3'"),
        ({"max_calls": True}, "max_calls=True"),
    ],
)
def test_wrong_limits_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget.of(limits)


def test_tokens_are_limited_only_where_replies_are() -> None:
    with pytest.raises(ConfigError, match="Give the request, or the LM, max_tokens"):
        LM(Scripted(["a"]), budget=Budget(max_tokens=100))("Hi")


@given(st.text(), st.integers(1, 5))
def test_the_bound_of_a_prompt_is_at_least_its_bytes(text: str, copies: int) -> None:
    request = ChatRequest([{"role": "user", "content": text}] * copies)
    assert prompt_bound(request) > copies * len(text.encode("utf-8", "surrogatepass"))


def test_threads_never_exceed_a_budget_by_one_call() -> None:
    engine = Scripted(lambda request: "x")
    budget = Budget(max_calls=100)
    lm = LM(engine, budget=budget)

    def call(i: int) -> bool:
        try:
            lm(str(i))
        except BudgetExhausted:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        exhausted = list(pool.map(call, range(400))).count(False)
    assert len(engine.requests) == 100
    assert exhausted == 300
    assert budget.spent.calls == 100


WORKER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from sharpen.core.lm import LM, Budget, BudgetExhausted, Scripted
folder, number = sys.argv[1:]
engine = Scripted(lambda request: "a b c")
budget = Budget(max_calls=150, max_tokens=100_000, file=folder + "/budget")
lm = LM(engine, budget=budget, max_tokens=8)
def call(i):
    try:
        lm(f"{number} {i}")
    except BudgetExhausted:
        pass
with ThreadPoolExecutor(8) as pool:
    list(pool.map(call, range(100)))
print(len(engine.requests))
"""


@pytest.mark.slow
def test_processes_never_exceed_a_budget_that_they_share(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(4)
    ]
    made = [int(worker.communicate()[0]) for worker in workers]
    assert sum(made) == 150
    budget = Budget(max_calls=151, file=tmp_path / "budget")
    assert budget.spent == Spent(calls=150, tokens=150 * 5)
    budget.reserve(0, 0.0)
    with pytest.raises(BudgetExhausted):
        budget.reserve(0, 0.0)


KILLED = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from sharpen.core.lm import LM, Budget, BudgetExhausted, Scripted
folder, number = sys.argv[1:]
calls = os.open(folder + "/calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def reply(request):
    os.write(calls, b"begun\\n")
    return "a b c"
lm = LM(Scripted(reply), budget=Budget(max_calls=300, file=folder + "/budget"))
print("ready", flush=True)
def call(i):
    try:
        lm(f"{number} {i}")
    except BudgetExhausted:
        pass
with ThreadPoolExecutor(8) as pool:
    list(pool.map(call, range(400)))
"""


@pytest.mark.slow
def test_processes_that_are_killed_never_make_room_for_more(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers[:2]:
        time.sleep(0.05)
        worker.kill()
    for worker in workers:
        worker.communicate()
    begun = (tmp_path / "calls").read_text().count("begun")
    assert Budget(max_calls=1, file=tmp_path / "budget").spent.calls == 300
    # Those that were killed may have been about to make the calls they had counted.
    assert 300 - 2 * 8 <= begun <= 300


def test_a_file_goes_along_to_other_processes_and_memory_does_not(tmp_path: Path) -> None:
    budget = Budget(max_calls=2, file=tmp_path / "budget")
    budget.reserve(3, 0.5)
    again = pickle.loads(pickle.dumps(budget))
    assert again.spent == Spent(calls=1, tokens=3, cost=0.5)
    with pytest.raises(ConfigError, match="needs a file"):
        pickle.dumps(Budget(max_calls=2))


def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes, of some length\n" * 100)
    with pytest.raises(FileFormatError):
        Budget(max_calls=1, file=file).reserve(0, 0.0)
    assert file.read_text().startswith("my notes")
