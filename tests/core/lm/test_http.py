import asyncio
import gzip
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from lm_server import answer, cut, drip, events, hang_up, running_server, stall
from sharpen.core.errors import ConfigError, SharpenError
from sharpen.core.lm import (
    LM,
    AccessError,
    Budget,
    BudgetExhausted,
    OpenAIEngine,
    ReplyError,
    RequestError,
    ServiceError,
    Spent,
)

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("SHARPEN_LLM", "OPENAI"):
        for name in ("BASE_URL", "MODEL", "API_KEY"):
            monkeypatch.delenv(f"{room}_{name}", raising=False)


def engine(url: str, **options: Any) -> OpenAIEngine:
    return OpenAIEngine(url, **{"backoff_s": 0.001, **options})


def some(*replies: Any) -> Any:
    """A script of replies one after another; the last stays."""
    left = list(replies)
    lock = threading.Lock()

    def script(body: Any) -> Any:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return script


def test_a_request_is_sent_in_the_form_of_the_api() -> None:
    with running_server(some("Paris.")) as server, LM(server.url, max_tokens=9, seed=3) as lm:
        assert lm("Capital of France?", stop="x", extra={"top_k": 4}) == "Paris."
        assert lm.usage.prompt_tokens == 7
    assert server.bodies == [
        {
            "model": "stub",
            "messages": [{"role": "user", "content": "Capital of France?"}],
            "temperature": 0.0,
            "max_tokens": 9,
            "seed": 3,
            "stop": ["x"],
            "top_k": 4,
        }
    ]


def test_several_replies_come_in_their_order() -> None:
    two = answer("a", "b")
    two["choices"].reverse()
    with running_server(some(two, answer("a"))) as server, LM(server.url) as lm:
        assert lm.chat("x", n=2).texts == ["a", "b"]
        assert server.bodies[0]["n"] == 2
        with pytest.raises(RequestError, match="gave 1 of n=2"):
            lm.chat("x", n=2)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_what_fails_for_a_while_is_asked_for_again(status: int) -> None:
    script = some((status, {"error": {"message": "busy"}}), (status, b"<html>"), "fine")
    with running_server(script) as server, LM(engine(server.url)) as lm:
        assert lm("x") == "fine"
        assert lm.usage.failed == 2
    assert len(server.bodies) == 3


@pytest.mark.parametrize("broken", [hang_up, cut, b"no json", b"{}", {"choices": []}])
def test_broken_answers_are_asked_for_again(broken: Any) -> None:
    with running_server(some(broken, broken, "fine")) as server, LM(engine(server.url)) as lm:
        assert lm("x") == "fine"


@pytest.mark.parametrize(
    "broken",
    [
        {"choices": [{"message": {"content": 7}}]},
        {"choices": ["x"]},
        {"choices": "x"},
        {"error": {"message": "in a success"}},
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
    ids=range(7),
)
def test_answers_that_are_none_end_in_an_error_after_some_tries(broken: Any) -> None:
    with (
        running_server(some(broken)) as server,
        LM(engine(server.url, max_retries=2)) as lm,
        pytest.raises(ServiceError, match="3 times") as error,
    ):
        lm("x")
    assert len(server.bodies) == 3
    assert error.value.may_have_cost
    assert server.url in str(error.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, RequestError) for status in (400, 413, 422)),
        *((status, AccessError) for status in (401, 403, 404, 307)),
    ],
)
def test_what_is_refused_is_not_asked_again(status: int, kind: type[SharpenError]) -> None:
    body = {"error": {"message": "too long.", "code": "x"}}
    with (
        running_server(some((status, body, {"Location": "/elsewhere"}))) as server,
        LM(engine(server.url)) as lm,
        pytest.raises(kind) as error,
    ):
        lm("x")
    assert len(server.bodies) == 1
    assert f"HTTP {status}" in str(error.value)
    assert ("/elsewhere" if status == 307 else "too long.") in str(error.value)


def test_an_empty_account_is_not_asked_again() -> None:
    body = {"error": {"message": "You exceeded", "code": "insufficient_quota"}}
    with (
        running_server(some((429, body))) as server,
        LM(engine(server.url)) as lm,
        pytest.raises(AccessError, match="nothing left"),
    ):
        lm("x")
    assert len(server.bodies) == 1


def test_the_server_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("sharpen.core.lm.http.time.sleep", waits.append)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    script = some(
        (429, {}, {"Retry-After": "7"}),
        (503, {}, {"Retry-After": later}),
        (429, {}, {"Retry-After": "soon"}),
        "fine",
    )
    with running_server(script) as server, LM(engine(server.url)) as lm:
        assert lm("x") == "fine"
    assert waits[0] == 7.0
    assert 50 <= waits[1] <= 60
    assert waits[2] <= 0.004
    with (
        running_server(some((429, {}, {"Retry-After": "5000"}))) as server,
        LM(engine(server.url)) as lm,
        pytest.raises(ServiceError, match="asked again in 5000 seconds"),
    ):
        lm("x")


def test_a_server_without_response_format_is_asked_without_from_then_on() -> None:
    def script(body: Any) -> Any:
        if "response_format" in body:
            return 400, {"error": {"message": "response_format is not supported"}}
        return '{"a": 1}'

    with running_server(script) as server, LM(engine(server.url)) as lm:
        assert lm.json("x", {"type": "object"}) == {"a": 1}
        assert lm.json("y", {"type": "object"}) == {"a": 1}
    assert ["response_format" in body for body in server.bodies] == [True, False, False]


def test_a_server_that_wants_another_limit_is_asked_its_way_from_then_on() -> None:
    def script(body: Any) -> Any:
        if "max_tokens" in body:
            told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {"error": {"message": told}}
        return "fine"

    with running_server(script) as server, LM(engine(server.url), max_tokens=5) as lm:
        assert [lm("x"), lm("y")] == ["fine", "fine"]
        with pytest.raises(RequestError):
            lm("x", extra={"max_tokens": 5})
    # What the user insists on is refused, after it was asked the server's way once more.
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 5, 5, 5, 5]


def test_threads_that_learn_it_at_once_are_all_answered() -> None:
    def script(body: Any) -> Any:
        time.sleep(0.01)
        if "response_format" in body:
            return 400, {"error": {"message": "response_format is not supported"}}
        return '{"a": 1}'

    with running_server(script) as server, LM(engine(server.url), concurrency=8) as lm:
        assert lm.map_json([str(i) for i in range(24)], {"type": "object"}) == [{"a": 1}] * 24


def test_another_400_with_a_format_is_refused_once() -> None:
    with (
        running_server(some((400, {"error": "bad"}))) as server,
        LM(engine(server.url)) as lm,
        pytest.raises(RequestError, match="bad"),
    ):
        lm.json("x", {"type": "object"})
    assert len(server.bodies) == 1


@pytest.mark.parametrize("lazy", [stall(3.0), drip(0.05)], ids=["stall", "drip"])
def test_servers_that_stall_are_given_up(lazy: Any) -> None:
    with (
        running_server(some(lazy)) as server,
        LM(engine(server.url, timeout_s=0.3, max_retries=1)) as lm,
        pytest.raises(ServiceError, match="2 times") as error,
    ):
        lm("x")
    assert error.value.may_have_cost


def test_a_server_that_is_not_there_is_named() -> None:
    lm = LM(engine("http://127.0.0.1:9/v1", model="m", max_retries=1))
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/v1: no connection.*2 times.*running"):
        lm("x")
    with pytest.raises(ServiceError, match="no connection"):
        engine("http://127.0.0.1:9/v1", max_retries=0)


def _packed(data: bytes) -> Any:
    def do(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return do


def _in_chunks(handler: Any) -> None:
    data = json.dumps(answer("fine")).encode()
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for i in range(0, len(data), 7):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(data[i : i + 7]), data[i : i + 7]))
    handler.wfile.write(b"0\r\n\r\n")


def _no_http(handler: Any) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    handler.close_connection = True


def _huge_header(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("X", "y" * 1_000_000)
    handler.end_headers()


def test_answers_may_be_packed_or_in_chunks() -> None:
    packed = _packed(gzip.compress(json.dumps(answer("fine")).encode()))
    with running_server(some(packed, _in_chunks)) as server, LM(engine(server.url)) as lm:
        assert [lm("x"), lm("y")] == ["fine", "fine"]


@pytest.mark.parametrize("odd", [_packed(b"no gzip"), _no_http, _huge_header])
def test_what_is_no_http_is_given_up(odd: Any) -> None:
    with (
        running_server(some(odd)) as server,
        LM(engine(server.url, max_retries=1)) as lm,
        pytest.raises(ServiceError, match="the connection: broken"),
    ):
        lm("x")
    assert len(server.bodies) == 2


def test_an_answer_that_unpacks_to_too_much_is_refused() -> None:
    bomb = _packed(gzip.compress(b" " * 50_000_000))
    with (
        running_server(some(bomb)) as server,
        LM(engine(server.url)) as lm,
        pytest.raises(ReplyError, match="max_reply_bytes"),
    ):
        lm("x")


def test_a_stream_without_line_ends_is_refused() -> None:
    with (
        running_server(some(events("x" * 200_000))) as server,
        LM(engine(server.url, max_reply_bytes=100_000)) as lm,
        pytest.raises(ReplyError, match="max_reply_bytes"),
    ):
        list(lm.stream("x"))


def test_a_huge_answer_is_refused() -> None:
    with (
        running_server(some("x" * 100_000)) as server,
        LM(engine(server.url, max_reply_bytes=50_000)) as lm,
        pytest.raises(ReplyError, match="max_reply_bytes=50,000"),
    ):
        lm("x")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("usage", "known"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, True),
        ({"prompt_tokens": 5, "completion_tokens": 0}, False),
        ({"prompt_tokens": 0, "completion_tokens": 2}, False),
        ({"prompt_tokens": -5, "completion_tokens": 2}, False),
        ({"prompt_tokens": "5", "completion_tokens": 2}, False),
        ({"prompt_tokens": True, "completion_tokens": 2}, False),
        ({}, False),
        ("lots", False),
    ],
)
def test_counts_that_cannot_be_are_unknown(usage: Any, known: bool) -> None:
    with running_server(some(answer("a b", usage=usage))) as server, LM(server.url) as lm:
        response = lm.chat("x")
        assert (response.usage is not None) == known
        assert lm.usage.unknown == int(not known)


def test_cached_tokens_are_read() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    with running_server(some(answer("a b", usage=usage))) as server, LM(server.url) as lm:
        lm("x")
        assert lm.usage.cached_tokens == 3


def test_no_more_requests_at_once_than_allowed() -> None:
    def script(body: Any) -> str:
        time.sleep(0.02)
        return "x"

    with running_server(script) as server, LM(server.url, concurrency=3) as lm:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lm, map(str, range(24))))
        assert server.most_at_once <= 3
        assert asyncio.run(lm.amap([str(i) for i in range(8)])) == ["x"] * 8
    assert server.most_at_once == 3


def test_requests_wait_for_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("sharpen.core.lm.http.time.sleep", waits.append)
    with running_server(some("x")) as server, LM(engine(server.url, rpm=2)) as lm:
        lm.map(["a", "b", "c"], concurrency=1)
    assert len(waits) == 1
    assert 50 < waits[0] <= 60
    waits.clear()
    options = {"tpm": 300, "model": "stub"}
    with running_server(some("x")) as server, LM(engine(server.url, **options)) as lm:
        lm.map(["a", "b", "c"], concurrency=1, max_tokens=100)
    assert len(waits) == 1


# -- streams ---------------------------------------------------------------------------------------


def piece(text: str, reason: str | None = None) -> str:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return "data: " + json.dumps({"choices": [delta]})


def test_a_stream_gives_pieces() -> None:
    stream = events(": hello", piece("Par"), piece("is."), 'data: {"choices": []}', "data: [DONE]")
    with running_server(some(stream)) as server, LM(server.url) as lm:
        assert list(lm.stream("x")) == ["Par", "is."]
    assert server.bodies[0]["stream"] is True


def test_a_stream_that_fails_before_its_first_piece_is_asked_for_again() -> None:
    script = some((503, {}), hang_up, events("data: no json"), events(piece("a", "stop")))
    with running_server(script) as server, LM(engine(server.url)) as lm:
        assert list(lm.stream("x")) == ["a"]
    assert len(server.bodies) == 4


@pytest.mark.parametrize(
    "end", ["", "data: no json", 'data: {"error": {"message": "out of memory"}}']
)
def test_a_stream_that_is_cut_says_so_after_its_pieces(end: str) -> None:
    stream = events(piece("a"), end) if end else events(piece("a"))
    with running_server(some(stream)) as server, LM(engine(server.url)) as lm:
        pieces = lm.stream("x")
        assert next(pieces) == "a"
        with pytest.raises(ServiceError):
            next(pieces)
    assert len(server.bodies) == 1


def test_a_stream_that_is_left_gives_its_place_back() -> None:
    script = some(events(*[piece("a")] * 50, piece("", "stop")))
    with running_server(script) as server, LM(server.url, concurrency=1) as lm:
        for _ in range(3):
            pieces = lm.stream("x")
            next(pieces)
            pieces.close()  # type: ignore[attr-defined]


# -- budgets and the cache -------------------------------------------------------------------------


def test_every_try_counts_unless_it_was_refused_at_once() -> None:
    script = some((429, {}), (500, {}), "fine")
    budget = Budget(max_calls=10, max_tokens=100_000)
    with (
        running_server(script) as server,
        LM(engine(server.url), budget=budget, max_tokens=5) as lm,
    ):
        lm("x")
    most = budget.tokens_of(lm.request("x"))
    assert budget.spent == Spent(calls=2, tokens=sum(most) + 8)


def test_no_request_leaves_without_a_budget_for_it(tmp_path: Path) -> None:
    with running_server(some((500, {}))) as server:
        lm = LM(engine(server.url), budget=Budget(max_calls=3, file=tmp_path / "b"))
        with pytest.raises(BudgetExhausted):
            lm("x")
    assert len(server.bodies) == 3


def test_replies_of_another_server_are_not_taken(tmp_path: Path) -> None:
    with running_server(some("one")) as first, running_server(some("two")) as second:
        for server, text in ((first, "one"), (second, "two"), (first, "one")):
            assert LM(server.url, cache=tmp_path / "replies.sqlite")("x") == text
    assert (len(first.bodies), len(second.bodies)) == (1, 1)


# -- keys and the environment ----------------------------------------------------------------------


def test_the_key_stands_in_the_header_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = some(
        (500, {"error": {"message": f"Wrong key {KEY}"}}),
        "fine",
        (401, {"error": {"message": f"Wrong key {KEY}"}}),
    )
    with running_server(echo) as server:
        options = {"api_key": KEY, "backoff_s": 0.001}
        lm = LM(server.url, options=options, cache=tmp_path / "replies.sqlite")
        assert lm("x") == "fine"
        with pytest.raises(AccessError) as error:
            lm("y")
        lm.close()
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "Wrong key [key]" in str(error.value)
    told = [repr(lm), repr(lm.engine), repr(error.value), caplog.text, str(vars(lm))]
    files = [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
    assert not any(KEY in one for one in told + files)


def test_the_environment_names_server_model_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(some("x"), models=("a", "b")) as server:
        with pytest.raises(AccessError, match=r"one model \(a, b\)"):
            LM(server.url)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "k-openai")
        monkeypatch.setenv("SHARPEN_LLM_MODEL", "b")
        with LM() as lm:
            lm("x")
        assert server.bodies[-1]["model"] == "b"
        assert server.headers[-1]["Authorization"] == "Bearer k-openai"
        monkeypatch.setenv("SHARPEN_LLM_API_KEY", "k-own")
        with LM() as lm:
            lm("x")
        assert server.headers[-1]["Authorization"] == "Bearer k-own"


def test_the_key_of_one_server_is_not_sent_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-openai")
    with running_server(some("x")) as server, LM(server.url) as lm:
        lm("x")
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://", "is no address"),
        ("http://[", "is no address"),
        ("http://a:b@127.0.0.1/v1", "give api_key instead"),
        ("http://127.0.0.1/v1?key=1", "must end before"),
        ("ftp://127.0.0.1", "is no address"),
    ],
)
def test_addresses_that_are_none_are_refused(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        LM(address)
    assert "a:b" not in str(error.value)


def test_an_address_is_completed() -> None:
    with running_server(some("x")) as server:
        for url in (
            server.url.removesuffix("/v1"),
            server.url + "/",
            server.url + "/chat/completions",
        ):
            assert engine(url).base_url == server.url


@pytest.mark.parametrize(
    "options", [{"timeout_s": 0}, {"rpm": -1}, {"max_retries": -1}, {"api_key": "a\nb"}]
)
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        engine("http://127.0.0.1:9/v1", model="m", **options)


def test_a_message_that_is_no_json_is_refused() -> None:
    lm = LM(engine("http://127.0.0.1:9/v1", model="m"))
    with pytest.raises(RequestError, match="must be JSON"):
        lm("x", extra={"a": float("nan")})
    with pytest.raises(RequestError, match="must not hold 'messages'"):
        lm("x", extra={"messages": []})


# -- servers that are up to no good ----------------------------------------------------------------


def _then(*steps: Any) -> Any:
    """A stream of lines with pauses, in seconds, between them."""

    def do(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for step in steps:
            if isinstance(step, float):
                time.sleep(step)
            else:
                handler.wfile.write(step.encode() + b"\n\n")
                handler.wfile.flush()
        handler.close_connection = True

    return do


def test_a_stream_that_stalls_after_its_first_piece_is_given_up() -> None:
    script = some(_then(piece("a"), 3.0, piece("b", "stop")))
    with (
        running_server(script) as server,
        LM(engine(server.url, timeout_s=0.3, max_retries=3)) as lm,
    ):
        pieces = lm.stream("x")
        assert next(pieces) == "a"
        with pytest.raises(ServiceError):
            next(pieces)
    assert len(server.bodies) == 1  # what was shown already is not asked for again


def test_a_stream_that_stalls_before_its_first_piece_is_asked_for_again() -> None:
    script = some(_then(": wait", 3.0), events(piece("fine", "stop")))
    with running_server(script) as server, LM(engine(server.url, timeout_s=0.3)) as lm:
        assert list(lm.stream("x")) == ["fine"]
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        {"prompt_tokens": 5.5, "completion_tokens": 1},
        {"prompt_tokens": float("nan"), "completion_tokens": 1},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": {"a": 1}, "completion_tokens": [1]},
        {"total_tokens": 3},
        [1, 2],
        0,
    ],
)
def test_whatever_a_server_says_of_usage_the_budget_holds(usage: Any) -> None:
    with running_server(some(answer("a b", usage=usage))) as server:
        lm = LM(engine(server.url), budget=Budget(max_calls=4, max_tokens=3000), max_tokens=5)
        replies = 0
        try:
            for k in range(9):
                replies += lm(f"question {k}") == "a b"
        except BudgetExhausted:
            pass
        assert 1 <= replies <= 4
        assert len(server.bodies) == replies


def test_errors_in_turn_with_answers_lose_nothing() -> None:
    script = some(
        (429, {"error": "slow down"}), cut, (500, b"\xff"), stall(1.0), b"no json", "fine"
    )
    with (
        running_server(script) as server,
        LM(engine(server.url, timeout_s=0.3, max_retries=5)) as lm,
    ):
        assert lm("x") == "fine"
        assert lm.usage.failed == 5
    assert len(server.bodies) == 6
