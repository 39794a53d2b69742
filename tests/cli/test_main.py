import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sharpen
from sharpen.cli.main import COMMANDS

Invoke = Callable[..., Any]
HEAVY = ("torch", "sqlalchemy", "pydantic", "plotly", "pandas", "transformers", "fastapi")


@pytest.mark.parametrize(
    "code",
    [
        "import sharpen",
        "import sys; sys.argv = ['sharpen', '--help']; from sharpen.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass",
        "import sharpen.models.tokenizer, sharpen.models.chat, sharpen.data",
    ],
    ids=["import", "help", "tokenizer-and-data"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    code += f"\nimport sys; print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_lists_every_command_and_the_version_is_printed(invoke: Invoke) -> None:
    done = invoke("--help")
    assert done.code == 0
    for name, summary in COMMANDS.items():
        assert name in done.out
        assert summary in done.out
    assert invoke("--version").out.strip() == sharpen.__version__


def _pages(invoke: Invoke, *words: str) -> Iterator[tuple[str, Any]]:
    """The help of a command, or of all in a group."""
    done = invoke(*words, "--help")
    assert done.code == 0
    if "COMMAND" not in done.out.split("\n")[1]:
        yield " ".join(words), done
        return
    for row in done.out.split("Commands")[1].splitlines():
        if row.startswith("│") and row[2] != " ":
            yield from _pages(invoke, *words, row.split()[1])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_common_options(
    invoke: Invoke, command: str
) -> None:
    pages = list(_pages(invoke, command))
    assert pages
    for name, page in pages:
        assert page.code == 0
        assert f"Example:  sharpen {name}" in page.out
        for option in ("--json", "--quiet", "--verbose", "--debug"):
            assert option in page.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'recipe'"),
        (["assets", "list", "--knd", "model"], "No such option: --knd"),
        (["run", "recipe.yaml", "--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_wrong_usage_is_code_2_and_one_json_document_when_asked(
    invoke: Invoke, words: list[str], message: str
) -> None:
    done = invoke(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    done = invoke(*words, "--json")
    assert done.code == 2
    error = json.loads(done.out)["error"]
    assert message in error["message"]
    assert error["exit_code"] == 2
    assert message in done.err


def test_without_a_word_the_help_is_shown(invoke: Invoke) -> None:
    done = invoke()
    assert "Usage" in done.out + done.err


def test_errors_have_no_traceback_unless_asked(invoke: Invoke) -> None:
    done = invoke("plan", "absent.yaml")
    assert done.code == 2
    assert done.err == "error: no such file: absent.yaml\n"
    assert "Traceback" in invoke("plan", "absent.yaml", "--debug").err
    document = json.loads(invoke("plan", "absent.yaml", "--json").out)
    assert document["error"] == {
        "type": "MissingFileError",
        "message": "no such file: absent.yaml",
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted."),
        (MemoryError("cannot allocate"), 1, "out of memory: cannot allocate"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied (/x)."),
    ],
)
def test_what_breaks_on_the_way_has_its_own_code(
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("sharpen.core.assets.asset_path", fail)
    done = invoke("assets", "path", "tiny", "--json")
    assert done.code == code
    assert message in json.loads(done.out)["error"]["message"]


def test_a_bug_is_not_passed_off_as_wrong_usage(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("sharpen.core.assets.asset_path", fail)
    for words in (["assets", "path", "tiny"], ["assets", "path", "tiny", "--json"]):
        with pytest.raises(LookupError, match="a bug"):
            invoke(*words)
