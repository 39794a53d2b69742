"""Blocks of a Markdown page, and how a process of their own runs them in order.

Blocks of a page share one folder and one namespace. ``python`` blocks run in this process, ``sh``
blocks in bash, and a ``yaml`` block whose first line is ``# name.yaml`` is written to that file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)")
SKIP = re.compile(r"^<!-- not run: .+ -->$")
FILE = re.compile(r"^# ([\w./-]+\.ya?ml)\s*$")
NUMBER = re.compile(r"\d[\d.,_]*(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Block:
    language: str
    line: int
    """Number of the first line inside the fence."""
    text: str
    shown: str
    """The output that the page shows below it; may be empty."""


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page that run, and what each is said to print."""
    found: list[Block] = []
    previous: Block | None = None
    for language, line, text, lead in _fences(page):
        if language == "text" and previous is not None and not lead:
            found[-1] = Block(previous.language, previous.line, previous.text, text)
            previous = None
        elif language in ("python", "sh", "yaml") and not SKIP.match(lead):
            previous = Block(language, line, text, "")
            found.append(previous)
        else:
            previous = None
    return found


def _fences(page: str) -> Iterator[tuple[str, int, str, str]]:
    """Language, first line number, text, and the last line of prose since the block before."""
    lead, inside, start = "", None, 0
    lines: list[str] = []
    for number, line in enumerate(page.splitlines(), start=1):
        fence = FENCE.match(line)
        if inside is None and fence:
            inside, start, lines = fence[1], number + 1, []
        elif inside is not None and line.startswith("```"):
            yield inside, start, "\n".join(lines) + "\n", lead
            inside, lead = None, ""
        elif inside is not None:
            lines.append(line)
        elif line.strip():
            lead = line.strip()


def agrees(shown: str, output: str) -> bool:
    """Whether ``output`` has what the page shows: numbers and spacing may differ, … is anything."""
    pattern: list[str] = []
    for word in shown.split():
        parts = re.split(r"…|\.\.\.", word)
        pattern.append(r".*?".join(_numbers(part) for part in parts))
    return re.search(r"\s+".join(pattern), output, re.DOTALL) is not None


def _numbers(word: str) -> str:
    return NUMBER.pattern.join(re.escape(part) for part in NUMBER.split(word))


def run_page(
    page: str, blocks: list[Block], folder: Path, environment: dict[str, str], told: Path
) -> None:
    """Run the blocks in this process, in ``folder``, and leave with code 1 at the first that fails.

    Args:
        page: name, for messages.
        blocks: of the page.
        folder: where they run.
        environment: in place of this process's own.
        told: file to which everything is written that no block is seen to print.
    """
    # What the blocks start and leave behind can be ended with the group.
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with told.open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        where = f"{page}:{block.line}"
        code, output = _captured(block, where, namespace)
        if code != 0:
            sys.exit(f"{where}: this {block.language} block failed ({code}):\n{output}")
        if not agrees(block.shown, output):
            sys.exit(f"{where}: the page shows\n{block.shown}\nit prints\n{output}")


def _captured(block: Block, where: str, namespace: dict[str, Any]) -> tuple[int, str]:
    """Exit code and everything printed, by this process or its children."""
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            code = _run(block, where, namespace)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for handle, number in zip(kept, (1, 2), strict=True):
                os.dup2(handle, number)
                os.close(handle)
        file.seek(0)
        return code, file.read().decode("utf-8", "replace")


def _run(block: Block, where: str, namespace: dict[str, Any]) -> int:
    if block.language == "sh":
        return subprocess.run(["bash", "-e", "-c", block.text], check=False).returncode
    if block.language == "yaml":
        named = FILE.match(block.text.splitlines()[0])
        if named:
            Path(named[1]).write_text(block.text)
        else:
            _check_fragment(block.text)
        return 0
    try:
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, where.rpartition(":")[0], "exec", dont_inherit=True), namespace)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def _check_fragment(text: str) -> None:
    """A block without a file name shows stages of a recipe; their keys and values must be right."""
    import yaml

    from sharpen.core.recipe import load_recipe

    load_recipe({"sharpen": 1, "name": "page", "model": "tiny", **yaml.safe_load(text)})
