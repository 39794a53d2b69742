"""Every block of the README and the documentation runs, and prints what the page shows."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from distributed import process
from docs.page import agrees, blocks_of, run_page
from e2e.command import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)
TIMEOUT_S = 240
LARGE_MODEL = "smollm2-135m-instruct"


def _cases() -> list[Any]:
    cases = []
    for page in PAGES:
        blocks = blocks_of(page.read_text(encoding="utf-8"))
        if blocks:
            marks = [pytest.mark.slow]
            if any(LARGE_MODEL in block.text for block in blocks):
                marks.append(pytest.mark.asset)
            cases.append(pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks))
    return cases


@pytest.mark.parametrize("page", _cases())
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    name, told = str(page.relative_to(ROOT)), tmp_path / "told.txt"
    (folder := tmp_path / "page").mkdir()
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    child = process(run_page, name, blocks, folder, ENVIRONMENT, told)
    child.start()
    child.join(TIMEOUT_S)
    # A block that failed may have left a server behind; all of the page is one group.
    if _group_lives(child.pid):
        os.killpg(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == 0, f"exit code {child.exitcode}\n{told.read_text()}"


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def leaves(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [
            leaf
            for part in (node.values() if isinstance(node, dict) else node)
            for leaf in leaves(part)
        ]

    listed = leaves(settings["nav"])
    assert sorted(listed) == sorted(str(p.relative_to(ROOT / "docs")) for p in PAGES[1:])


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_relative_links_lead_to_pages_and_headings(page: Path) -> None:
    broken = []
    for target in LINK.findall(_prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            broken.append(target)
    assert broken == []


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def _anchors(page: Path) -> set[str]:
    titles = HEADING.findall(_prose(page))
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", t).strip().lower()) for t in titles}


def test_blocks_are_found_with_their_lines_and_outputs() -> None:
    page = (
        "# T\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "<!-- not run: takes an hour -->\n```sh\nfalse\n```\n\n```text\nnot for a block\n```\n"
        "```yaml\n# a.yaml\nx: 1\n```\nprose\n```text\nnot its output\n```\n```json\n{}\n```\n"
    )
    found = [(b.language, b.line, b.shown) for b in blocks_of(page)]
    assert found == [("python", 4, "1\n"), ("yaml", 20, "")]


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ("loss 3.07  of 1,533\n", "x\n loss 2.9 of  1,000 tokens\n", True),
        ("error: a:3: … allowed", "error: a:3: one\ntwo allowed", True),
        ("Paris.\n", "London.\n", False),
        ("loss 3.07", "perplexity 3.07", False),
    ],
)
def test_shown_output_agrees_up_to_numbers(shown: str, output: str, same: bool) -> None:
    assert agrees(shown, output) is same
