"""What operations record, and what they refuse."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.core.errors import ExecutionError as CoreExecutionError
from sharpen.core.lm.errors import BudgetExhausted


@st.op
def join(left: str, right: str) -> str:
    """Puts two texts together."""
    return left + right


def test_an_operation_is_given_plain_values_and_gives_a_node() -> None:
    style = st.Parameter("Answer briefly.", "style")
    out = join(style, right=" Now.")
    assert out.value == "Answer briefly. Now."
    assert out.inputs[0] is style
    assert out.inputs[1].value == " Now."
    assert out.call_record is not None
    assert out.call_record.names == ("left", "right")
    assert out.operation is not None
    assert (out.operation.name, out.operation.doc) == ("join", "Puts two texts together.")
    assert out.needs_grad
    assert not join("a", "b").needs_grad


def test_methods_record_their_arguments_and_not_their_object() -> None:
    class Agent:
        @st.op(name="act", doc="Moves.")
        def move(self, plan: str, *rest: str, times: int = 1) -> str:
            return plan * times + "".join(rest)

    out = Agent().move("a", "b", "c", times=2)
    assert out.value == "aabc"
    assert out.call_record is not None
    assert out.call_record.names == ("plan", "rest_0", "rest_1", "times")
    assert out.operation is not None
    assert out.operation.name == "act"


def test_one_input_may_be_given_twice() -> None:
    x = st.Parameter(3.0, "x")
    y = x + x
    z = y * y
    assert z.value == 36.0
    z.backward(1.0, st.ScalarPropagator())
    assert x.messages == [12.0, 12.0]  # one for each slot: d(2x)^2/dx = 8x = 24 in all


def test_arithmetic_records_the_operators_and_their_derivatives() -> None:
    a, b = st.Parameter(2.0, "a"), st.Parameter(5.0, "b")
    out = (a * b - 3.0) / (b - a) + abs(-(a**2.0))
    out.backward(1.0, st.ScalarPropagator())
    assert out.value == pytest.approx(7 / 3 + 4)
    # d/da (ab-3)/(b-a) + a^2 = b/(b-a) + (ab-3)/(b-a)^2 + 2a
    assert sum(a.messages) == pytest.approx(5 / 3 + 7 / 9 + 4)
    assert sum(b.messages) == pytest.approx(2 / 3 - 7 / 9)


def test_containers_of_nodes_become_nodes() -> None:
    @st.op
    def count(items: list[str], table: dict[str, int]) -> int:
        return len(items) + table["k"]

    word = st.Parameter("w", "word")
    out = count([word, "x"], {"k": st.node(4)})
    assert out.value == 6
    made = out.inputs[0]
    assert made.value == ["w", "x"]
    assert made.inputs[0] is word
    assert out.needs_grad


def test_items_and_methods_of_a_value_are_recorded() -> None:
    text = st.Parameter("a,b,c", "text")
    parts = text.call("split", ",")
    assert [part.value for part in parts] == ["a", "b", "c"]
    assert parts[1].needs_grad
    assert len(parts) == 3
    assert parts.len().value == 3
    assert st.node({"k": 1})["k"].value == 1
    assert (st.node(3) < 4).value is True
    assert st.node(3).eq(3).value is True
    with pytest.raises(TypeError, match="leave no record"):
        bool(st.node(3) < 4)


def test_a_parameter_that_is_read_secretly_is_an_error_that_names_it() -> None:
    secret = st.Parameter("x", "secret")

    @st.op
    def peek(text: str) -> Any:
        return text + secret.value

    with pytest.raises(st.UndeclaredInputError, match=r"peek.*secret.*allow_external"):
        peek("a")

    @st.op(allow_external=True)
    def allowed(text: str) -> Any:
        return text + secret.value

    out = allowed("a")
    assert out.inputs[1] is secret
    assert out.call_record is not None
    assert out.call_record.names == ("text", "external_0")


def test_operations_within_operations_link_what_they_give() -> None:
    rule = st.Parameter("r", "rule")

    @st.op(allow_external=True)
    def outer(text: str) -> Any:
        return join(rule, text)

    out = outer("a")
    assert out.value == "ra"
    assert any(rule in node.inputs for node in out.inputs)


def test_an_exception_becomes_a_node_that_takes_feedback() -> None:
    top = st.Parameter(1.0, "top")

    @st.op
    def rate(top: float, total: float) -> float:
        share = top
        return share / total

    with pytest.raises(st.ExecutionError) as caught:
        rate(top, 0.0)
    node = caught.value.node
    assert isinstance(caught.value, CoreExecutionError)
    assert node.value.startswith("ZeroDivisionError in 'rate': float division by zero")
    marked = [line for line in node.value.splitlines() if line.startswith(">")]
    assert [line.split(maxsplit=2)[2] for line in marked] == ["return share / total"]
    node.backward(node.value)
    assert top.pending[0][1].text == node.value


def test_a_wrong_call_is_the_callers_error() -> None:
    with pytest.raises(TypeError, match="right"):
        join("a")

    @st.op(catch=False)
    def fail() -> None:
        raise KeyError("plain")

    with pytest.raises(KeyError):
        fail()


def test_an_operator_that_fails_takes_feedback_too() -> None:
    x = st.Parameter(1.0, "x")
    with pytest.raises(st.ExecutionError) as caught:
        x / 0.0
    assert caught.value.node.inputs[0] is x


def test_coroutines_are_recorded_and_tasks_do_not_see_each_other() -> None:
    @st.op
    async def slow(text: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return text.upper()

    async def both() -> Any:
        return await asyncio.gather(slow(first, 0.02), slow(second, 0.01))

    first, second = st.Parameter("a", "first"), st.Parameter("b", "second")
    out = asyncio.run(both())
    assert [node.value for node in out] == ["A", "B"]
    assert out[0].inputs[0] is first

    @st.op(timeout=0.01)
    async def never(text: str) -> str:
        await asyncio.sleep(60)
        return text

    with pytest.raises(st.ExecutionError, match=r"more than 0\.01 s"):
        asyncio.run(never(first))
    with pytest.raises(ConfigError, match="async def"):
        st.op(timeout=1.0)(lambda x: x)


def test_no_trace_records_nothing() -> None:
    x = st.Parameter("a", "x")
    with st.no_trace():
        out = join(x, "b")
    assert (out.value, out.is_root, out.needs_grad) == ("ab", True, False)


def test_nothing_keeps_a_graph_but_its_outputs() -> None:
    x = st.Parameter("a", "x")
    out = join(x, "b")
    middle = weakref.ref(join(out, "c"))
    gc.collect()
    assert middle() is None
    deep: st.Node = st.Parameter(0, "n")
    for _ in range(100_000):
        deep = deep + 1
    assert deep.value == 100_000
    del deep  # no recursion


def test_a_tape_frees_what_got_no_feedback() -> None:
    x = st.Parameter("a", "x")
    with st.Tape() as tape:
        used, unused = join(x, "b"), join(x, "c")
        assert tape.nodes == [used, unused]
        used.backward("good")
    assert used.inputs[0] is x
    with pytest.raises(st.GraphFreedError, match="retain=True"):
        unused.backward("late")
    with st.Tape(retain=True):
        kept = join(x, "d")
    assert kept.inputs[0] is x


def test_a_tape_that_ends_with_an_error_keeps_its_graph() -> None:
    x = st.Parameter(1.0, "x")
    with pytest.raises(st.ExecutionError) as caught, st.Tape():
        x / 0.0
    caught.value.node.backward("divide by something else")
    assert len(x.pending) == 1


def test_threads_have_tapes_of_their_own() -> None:
    seen: list[int] = []

    def work() -> None:
        with st.Tape() as inner:
            join("a", "b")
            seen.append(len(inner.nodes))

    with st.Tape() as tape:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert tape.nodes == []
    assert seen == [1]


def test_feedback_is_sent_back_once_unless_retained() -> None:
    x = st.Parameter("a", "x")
    out = join(x, "b")
    out.backward("one", retain=True)
    out.backward("two")
    with pytest.raises(st.BackwardTwiceError, match="retain=True"):
        out.backward("three")
    assert [feedback.text for _, feedback in x.pending] == ["one", "two"]
    x.zero_feedback()
    assert x.pending == []
    with pytest.raises(ConfigError, match="words, a number"):
        join(x, "c").backward({"score": 1})


def test_nodes_are_not_pickled() -> None:
    with pytest.raises(TypeError, match=r"node\.value"):
        pickle.dumps(st.node(1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"constraint": "short"}, "trainable=True"),
        ({"trainable": True, "constraint": None}, "plain|trainable"),
    ],
)
def test_node_refuses_what_makes_no_sense(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        st.node(st.node(1), **kwargs)  # type: ignore[arg-type]


def test_a_method_that_finds_the_budget_used_up_says_so_itself() -> None:
    class Asks:
        def __init__(self) -> None:
            self.lm = st.LM(st.Scripted(["a"]), budget=st.Budget(max_calls=1))

        def ask(self) -> str:
            return self.lm("question")

    asks = st.node(Asks())
    assert asks.call("ask").value == "a"
    with pytest.raises(BudgetExhausted):
        asks.call("ask")
