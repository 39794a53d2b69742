"""Functions whose source is a parameter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import sharpen.text as st
from sharpen.core.errors import ConfigError
from sharpen.text.code import CodeOp

FACTOR = 10


def make(offset: int) -> CodeOp:
    @st.op(trainable=True)
    def scale(x: float, *, times: int = 1) -> float:
        """Scales."""
        # a comment that stays
        return x * FACTOR * times + offset

    assert isinstance(scale, CodeOp)
    return scale


def test_the_source_is_a_parameter_that_runs_as_it_stands() -> None:
    scale = make(3)
    assert scale.parameter.kind == "code"
    assert scale.parameter.name == "scale_code"
    assert scale.parameter.value.startswith("def scale(x: float, *, times: int = 1) -> float:\n")
    assert "# a comment that stays" in scale.parameter.value
    out = scale(2, times=2)
    assert out.value == 43
    assert out.inputs[-1] is scale.parameter
    scale.parameter.value = "def scale(x, *, times=1):\n    return x * FACTOR - offset\n"
    assert scale(2).value == 17  # globals and the closure are there
    assert scale.parameter.history[0].startswith("def scale(x: float")


def test_a_method_and_a_recursion_can_be_trainable() -> None:
    class Policy:
        @st.op(trainable=True)
        def depth(self, n: int) -> int:
            return 0 if n == 0 else 1 + self.depth(n - 1).value

    out = Policy().depth(3)
    assert out.value == 3

    @st.op(trainable=True)
    def factorial(n: int) -> int:
        return 0

    assert isinstance(factorial, CodeOp)
    factorial.parameter.value = (
        "def factorial(n: int) -> int:\n    return 1 if n < 2 else n * factorial(n - 1)\n"
    )
    assert factorial(5).value == 120


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def scale(x, *, times=1)\n    return x", "cannot be parsed"),
        ("def scale(x):\n    return x", "must begin with: def scale"),
        ("def other(x, *, times=1):\n    return x", "must begin with: def scale"),
        ("import os\ndef scale(x, *, times=1):\n    return x", "nothing beside it"),
        ("def scale(x, *, times=1):\n    return x\nscale = None", "nothing beside it"),
        ("@str\ndef scale(x, *, times=1):\n    return x", "no decorators"),
        ("x = 1", "must be the function"),
        ("", "must be the function"),
        ("def scale(x, *, times=1):\n    return '\0'", "cannot be parsed"),
        ("(" * 10_000, "cannot be parsed"),
    ],
)
def test_other_texts_are_refused_and_change_nothing(text: str, message: str) -> None:
    scale = make(0)
    before = scale.parameter.value
    with pytest.raises(ConfigError, match=message):
        scale.parameter.value = text
    assert scale.parameter.value == before


def test_what_it_raises_marks_the_line_of_the_source() -> None:
    scale = make(0)
    for source, line, code in (
        (scale.parameter.value, 4, "return x * FACTOR * times + offset"),
        ("def scale(x, *, times=1):\n    y = 1\n    return x + y / 0\n", 3, "return x + y / 0"),
    ):
        scale.parameter.value = source
        with pytest.raises(st.ExecutionError) as caught:
            scale(None)
        assert f"> {line}     {code}" in caught.value.node.value
        assert caught.value.node.inputs[-1] is scale.parameter


def test_a_prompt_shows_the_source_and_takes_a_new_one() -> None:
    scale = make(0)
    out = scale(1)
    out.backward("should be 12")
    reply = (
        '{"reasoning": "", "suggestion": {"scale_code": '
        '"```python\\ndef scale(x, *, times=1):\\n    return 12\\n```"}}'
    )
    lm = st.Scripted([reply])
    report = st.OptoPrime([scale.parameter], lm).step()
    assert list(report.applied) == ["scale_code"]
    assert "(code) scale_code:\ndef scale(x: float" in lm.requests[0].prompt
    assert "scale_0 = scale(x=x, code=scale_code)" in lm.requests[0].prompt
    assert "scale_code: must begin with: def scale(x: float" in lm.requests[0].prompt
    assert scale(1).value == 12


def test_what_has_no_source_cannot_be_trainable() -> None:
    plain: Callable[[int], int] = eval("lambda x: x")
    with pytest.raises(ConfigError, match="trainable"):
        st.op(trainable=True)(plain)
