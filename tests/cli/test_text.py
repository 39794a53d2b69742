import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.core.lm import LM, Scripted, default_cache

Invoke = Callable[..., Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_users_cache_is_counted_and_cleared(invoke: Invoke) -> None:
    done = invoke("text", "cache", "stats", "--json")
    assert json.loads(done.out)["replies"] == 0
    assert not default_cache().exists()
    lm = LM(Scripted(lambda request: "x", model="m"), cache=True)
    lm.map(["a", "b", "c"])
    found = json.loads(invoke("text", "cache", "stats", "--json").out)
    assert (found["replies"], found["models"]) == (3, {"m": 3})
    assert found["file"] == str(default_cache())
    assert found["bytes"] > 0
    done = invoke("text", "cache", "stats")
    assert "3 replies" in done.out
    assert "m: 3" in done.out
    assert json.loads(invoke("text", "cache", "clear", "--json").out)["cleared"] == 3
    assert "0 replies forgotten" in invoke("text", "cache", "clear").out


def test_a_file_can_be_named(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    done = invoke("text", "cache", "stats", "--file", file)
    assert (done.code, "no such cache" in done.err) == (2, True)
    assert invoke("text", "cache", "clear", "--file", file).code == 2
    assert not file.exists()
    LM(Scripted(["x"]), cache=file)("a")
    assert "1 reply," in invoke("text", "cache", "stats", "--file", file).out
    file.with_suffix(".txt").write_text("notes" * 1000)
    done = invoke("text", "cache", "stats", "--file", file.with_suffix(".txt"))
    assert (done.code, "is no cache of replies" in done.err) == (2, True)


def test_a_model_that_is_not_there_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpen.cli.text_prompts import client_of
    from sharpen.core.errors import SharpenError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    for where in (Path("runs/here"), Path("kept/here")):
        with pytest.raises(SharpenError):
            client_of("local:nothing", None, where, None)
    assert [one.name for one in tmp_path.rglob("*")] == ["kept"]
