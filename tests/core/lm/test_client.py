import asyncio
import subprocess
import sys
from typing import Any

import pytest

import sharpen
import sharpen.core.lm as core_lm
from sharpen.core.errors import ConfigError
from sharpen.core.lm import (
    LM,
    BudgetExhausted,
    ChatRequest,
    Engine,
    ReplyError,
    Scripted,
    UnexpectedPrompt,
)


def echo() -> Scripted:
    return Scripted(lambda request: f"{request.messages[0]['role']}: {request.prompt}")


def test_it_is_called_with_a_text_and_gives_one() -> None:
    engine = echo()
    lm = LM(engine, max_tokens=50, temperature=0.5)
    assert lm("Hi") == "user: Hi"
    lm("Hi", temperature=0.0)
    assert [r.temperature for r in engine.requests] == [0.5, 0.0]
    assert {r.max_tokens for r in engine.requests} == {50}
    assert lm.chat([{"role": "user", "content": "Hi"}]).finish_reasons == ["stop"]


def test_a_system_message_begins_conversations_without_one() -> None:
    engine = echo()
    lm = LM(engine, system="Be brief.")
    assert lm("Hi") == "system: Hi"
    assert engine.requests[0].messages[0]["content"] == "Be brief."
    own = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Hi"}]
    lm(own)
    assert engine.requests[1].messages == tuple(own)


def test_another_client_shares_what_was_counted() -> None:
    engine = echo()
    lm = LM(engine, budget={"max_calls": 2}, seed=1)
    hot = lm.with_(temperature=1.0, system="S")
    lm("a"), hot("b")
    assert [(r.temperature, r.seed) for r in engine.requests] == [(0.0, 1), (1.0, 1)]
    assert lm.usage == hot.usage
    assert lm.usage.calls == 2
    assert lm.system is None
    with pytest.raises(sharpen.SharpenError):
        hot("c")


def test_many_prompts_come_back_in_order() -> None:
    lm = LM(echo())
    prompts = [str(i) for i in range(100)]
    assert lm.map(prompts, concurrency=7) == [f"user: {p}" for p in prompts]
    assert lm.map([]) == []
    assert asyncio.run(lm.amap(prompts)) == [f"user: {p}" for p in prompts]
    assert asyncio.run(lm.acall("x")) == "user: x"


def test_errors_of_many_are_raised_or_returned() -> None:
    lm = LM(Scripted({"a": "1", "c": "3"}))
    with pytest.raises(UnexpectedPrompt, match="'b'"):
        lm.map(["a", "b", "c"])
    first, second, third = lm.map(["a", "b", "c"], on_error="return")
    assert (first, third) == ("1", "3")
    assert isinstance(second, UnexpectedPrompt)


def test_an_error_of_all_that_follows_ends_the_rest_even_if_errors_are_returned() -> None:
    engine = Scripted(lambda request: "x")
    lm = LM(engine, budget={"max_calls": 2})
    with pytest.raises(BudgetExhausted):
        lm.map(["a"] * 100, on_error="return")
    assert len(engine.requests) == 2


def test_many_prompts_are_answered_by_a_schema() -> None:
    lm = LM(
        Scripted([(r"(?s)^b", "no"), ("schema", "no"), ("", lambda r: f'{{"x": "{r.prompt}"}}')])
    )
    schema = {"type": "object", "required": ["x"]}
    assert lm.map_json(["a", "c"], schema) == [{"x": "a"}, {"x": "c"}]
    first, second, third = lm.map_json(["a", "b", "c"], schema, retries=1, on_error="return")
    assert (first, third) == ({"x": "a"}, {"x": "c"})
    assert isinstance(second, ReplyError)
    with pytest.raises(ReplyError):
        lm.map_json(["a", "b", "c"], schema)


def test_the_first_error_ends_the_rest() -> None:
    engine = Scripted([("x", "1")])
    with pytest.raises(UnexpectedPrompt):
        LM(engine).map(["y"] + ["x"] * 1000, concurrency=1)
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temprature": 1}, "Did you mean 'temperature'"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"options": {"model": "x"}}, "options belong to an address"),
        ({"budget": {}}, "a Budget needs"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LM(echo(), **arguments)
    with pytest.raises(ConfigError, match="is no address and no engine"):
        LM(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Did you mean 'seed'"):
        LM(echo())("Hi", sed=1)


def test_every_public_name_loads() -> None:
    for name in core_lm.__all__:
        assert getattr(core_lm, name).__name__ == name or name == "Message"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = core_lm.nothing


def test_no_address_at_all_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHARPEN_LLM_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="SHARPEN_LLM_BASE_URL"):
        LM()


def test_a_client_is_an_engine_itself() -> None:
    inner = LM(echo(), budget={"max_calls": 1})
    assert isinstance(inner, Engine)
    assert inner.scope == inner.engine.scope
    outer = LM(inner)
    assert outer("Hi") == "user: Hi"
    assert inner.usage.calls == 1
    with pytest.raises(sharpen.SharpenError):
        asyncio.run(outer.acomplete(ChatRequest("Hi")))


def test_streaming_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ConfigError, match="its engine cannot"):
        LM(echo()).stream("Hi")


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("httpx", "LM('http://127.0.0.1:9/v1')"),
        ("jsonschema", "LM(Scripted(['{}'])).json('x', {})"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(package: str, program: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; from sharpen import LM, Scripted; "
    done = subprocess.run([sys.executable, "-c", code + program], capture_output=True, text=True)
    assert "DependencyNotInstalled" in done.stderr
    assert "pip install 'sharpen[lm]'" in done.stderr


def test_importing_it_loads_no_heavy_library() -> None:
    program = (
        "import sys; from sharpen import LM, Scripted\n"
        "LM(Scripted(['a']), budget={'max_calls': 1})('x')\n"
        "print(sorted({'torch', 'sqlalchemy', 'httpx', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
