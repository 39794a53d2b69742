import ast
import textwrap
from pathlib import Path

from sharpen.core.assets import asset_path
from sharpen.data.stdlib import docstring_examples, stdlib_files, stdlib_texts

SOURCE = '''"""Module."""
\x0c
@decorated
def documented(a,
               b):  # a comment
    """Add two numbers and return the sum.

    At length.
    """
    return a + b


def terse(a):
    "Too short."
    return a


def only():
    """A docstring and nothing else in it."""


def one_line(): "A docstring on the line of its def."; return 1


class Holder:
    async def method(self):
        \'\'\'Return what is held, whatever it is.\'\'\'
        text = """a
  b"""
        return text


def plain(a):
    return a
'''


def tree(root: Path) -> Path:
    for name, text in {
        "pkg/__init__.py": "x = 1\n",
        "pkg/mod.py": SOURCE,
        "pkg/test/mod.py": SOURCE,
        "lib2to3/mod.py": SOURCE,
        "site-packages/mod.py": SOURCE,
        "empty.py": " \n",
        "broken.py": "def f(:\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    return root


def test_modules_come_sorted_without_tests_and_other_peoples(tmp_path: Path) -> None:
    names = [name for name, _ in stdlib_files(tree(tmp_path))]
    assert names == ["broken", "empty", "latin", "pkg", "pkg.mod"]


def test_texts_are_whole_files_that_are_utf8(tmp_path: Path) -> None:
    found = {row["module"]: row["text"] for row in stdlib_texts(tree(tmp_path))}
    assert found == {"broken": "def f(:\n", "pkg": "x = 1\n", "pkg.mod": SOURCE}


def test_a_function_is_the_prompt_and_its_docstring_the_completion(tmp_path: Path) -> None:
    one, two = docstring_examples(tree(tmp_path))
    assert one == {
        "module": "pkg.mod",
        "prompt": (
            "@decorated\ndef documented(a,\n               b):  # a comment\n    return a + b"
        ),
        "completion": "Add two numbers and return the sum.\n\nAt length.",
    }
    assert two["prompt"].startswith("async def method(self):\n    text =")
    assert two["completion"] == "Return what is held, whatever it is."


def test_windows_line_ends_give_the_same_examples(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mod.py").write_bytes(SOURCE.replace("\n", "\r\n").encode())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mod.py").write_text(SOURCE)
    assert list(docstring_examples(tmp_path / "a")) == list(docstring_examples(tmp_path / "b"))


def test_prompts_of_the_real_library_are_functions_without_their_docstring() -> None:
    """Removing a docstring from the tree gives the tree of the prompt."""
    checked = 0
    for row in docstring_examples(asset_path("python-stdlib") / "email"):
        (function,) = ast.parse(row["prompt"]).body
        assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        assert ast.get_docstring(function) != row["completion"]
        assert textwrap.dedent(row["prompt"]) == row["prompt"]
        checked += 1
    assert checked > 100
