"""What is code in a reply."""

from __future__ import annotations

import pytest

from sharpen.code.replies import function_in

FAST = "Sure:\n```python\ndef f(xs):\n    return list(dict.fromkeys(xs))\n```\n"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (FAST, "def f(xs):\n    return list(dict.fromkeys(xs))\n"),
        ("def f(xs): return xs", "def f(xs): return xs\n"),
        ("```py\n    async def f(xs): return xs\n```", "async def f(xs): return xs\n"),
        ("```\ndef f(): pass\n```\nor\n```\ndef f(): return\n```", "def f(): return\n"),
        ("```python\ndef f(): pass\n```\n```sh\nls\n```", "def f(): pass\n"),
        ("```python\ndef g(): pass\n```", None),
        ("```python\ndef f(: pass\n```", None),
        ("nothing at all", None),
    ],
)
def test_the_last_block_that_defines_the_function_is_the_code(reply: str, code: str | None) -> None:
    assert function_in(reply, "f") == code
