"""The command line, called as its entry point is."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sharpen.cli.main import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Invoke = Callable[..., Done]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run ``sharpen`` with some words; gives the exit code and what was printed."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")

    def call(*words: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["sharpen", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return Done(int(caught.value.code or 0), printed.out, printed.err)

    return call
