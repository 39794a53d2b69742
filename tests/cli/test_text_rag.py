"""``sharpen text rag``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]

FACTS = [
    "The mill of Arlen burned in 1931. It was never rebuilt.",
    "The mill of Arlen burned in 1931, says the chronicle.",
    "Ida Voss owned the mill of Arlen. She moved to Brend.",
    "Fish swim in the river. Nobody counts them.",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    for i, text in enumerate(FACTS):
        (docs / ("deep" if i % 2 else "") / f"{i}.md").write_text(text)
    (docs / "picture.png").write_bytes(b"\x89PNG\xff")
    return docs


def test_index_select_and_ask(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "docs.npz"
    done = invoke("text", "rag", "index", folder, "-o", index, "--json")
    assert done.code == 0
    assert json.loads(done.out)["chunks"] == 4
    question = "Who owned the mill of Arlen and when did it burn?"
    done = invoke("text", "rag", "select", index, question, "--budget", 60, "--compare", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert found["tokens"] <= 60
    assert any("2.md" in one for one in found["ids"])
    assert set(found["compared"]) == {
        *("mcts", "topk", "mmr", "greedy", "beam", "knapsack", "exhaustive")
    }
    best = found["compared"]["exhaustive"]["score"]
    assert found["score"] == pytest.approx(best)
    done = invoke("text", "rag", "select", index, question, "--budget", 60, "--method", "topk")
    assert done.code == 0
    assert "chunks" in done.out
    replies = tmp_path / "replies.yaml"
    replies.write_text('- {match: "Ida Voss[^~]*Question: Who owned", reply: Ida Voss}\n')
    done = invoke(
        "text", "rag", "ask", index, question, "--lm", f"scripted:{replies}", "--budget", 60
    )
    assert done.code == 0
    assert done.out.startswith("Ida Voss\n")


@pytest.mark.asset("wordllama")
def test_an_index_of_meaning(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "docs.npz"
    done = invoke("text", "rag", "index", folder, "-o", index, "--embedder", "wordllama", "--json")
    assert done.code == 0
    assert json.loads(done.out)["embedder"] == "wordllama"
    asked = ("text", "rag", "select", index, "Which aquatic animals are there?", "--budget", 40)
    done = invoke(*asked, "--json")
    assert done.code == 0
    assert "3.md" in json.loads(done.out)["ids"][0]
    by_words = json.loads(invoke(*asked, "--reranker", "words", "--json").out)
    assert by_words["score"] != json.loads(done.out)["score"]
    invoke("text", "rag", "index", folder, "-o", index)
    done = invoke(*asked, "--reranker", "meaning")
    assert done.code == 2
    assert "--embedder" in done.err
    done = invoke(*asked, "--reranker", "luck")
    assert done.code == 2


def test_wrong_input_is_told(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "docs.npz"
    done = invoke("text", "rag", "index", folder / "none", "-o", index)
    assert done.code == 2
    assert "there is no file" in done.err
    done = invoke("text", "rag", "index", folder / "picture.png", "-o", index)
    assert done.code == 2
    assert "UTF-8" in done.err
    done = invoke("text", "rag", "select", index, "q")
    assert done.code == 2
    assert "rag index" in done.err
    (tmp_path / "empty").mkdir()
    done = invoke("text", "rag", "index", tmp_path / "empty", "-o", index)
    assert done.code == 2
    invoke("text", "rag", "index", folder, "-o", index)
    done = invoke("text", "rag", "select", index, "mill", "--method", "best")
    assert done.code == 2
    assert "'best' is unknown" in done.err


def test_nothing_is_not_indexed(invoke: Invoke, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    index = tmp_path / "docs.npz"
    done = invoke("text", "rag", "index", empty, "-o", index)
    assert done.code == 2
    assert "no text" in done.err
    assert not index.exists()
