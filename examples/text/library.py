"""Which pieces of Python's own documentation answer a question, under a budget of tokens?

    python examples/text/library.py "How do I read a file line by line?"
    python examples/text/library.py "..." --budget 300 --embedder minilm-l6 --lm local:smollm2

The docstrings of the standard library are cut into chunks and indexed by words and, with an
embedder, by meaning. Each way of choosing is shown with what it takes; with a model the question is
answered from the choice of the tree search.
"""

from __future__ import annotations

import argparse
import ast

import sharpen.text as st
from sharpen.core.assets import asset_path
from sharpen.core.embedding import open_embedder
from sharpen.text.prompts.template import render
from sharpen.text.rag import (
    BM25Index,
    Chunk,
    Chunker,
    EmbeddingIndex,
    EmbeddingReranker,
    HybridIndex,
    LexicalCoverage,
    select,
)

MODULES = ("pathlib", "shutil", "csv", "fileinput", "random", "statistics", "textwrap", "tempfile")
TEMPLATE = "{{context}}\n\nQuestion: {{question}}\nAnswer:"


def docstrings() -> list[Chunk]:
    """Chunks of the docstrings of some modules, each named after what it describes."""
    chunker = Chunker(size=120)
    chunks: list[Chunk] = []
    for module in MODULES:
        tree = ast.parse((asset_path("python-stdlib") / f"{module}.py").read_text("utf-8"))
        for part in ast.walk(tree):
            if isinstance(part, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text, name = ast.get_docstring(part), getattr(part, "name", "")
                label = f"{module}.{name}".rstrip(".")
                if text and not name.startswith("_"):
                    source = f"{label}:{getattr(part, 'lineno', 0)}"
                    chunks += chunker.split(f"{label}: {text}", source)
    return chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument("--budget", type=int, default=200, help="tokens of the prompt")
    parser.add_argument("--embedder", help="wordllama, minilm-l6, or a model's folder")
    parser.add_argument("--lm", help="a model that answers")
    args = parser.parse_args()

    chunks = docstrings()
    words = BM25Index(chunks)
    if args.embedder:
        meaning = EmbeddingIndex(chunks, open_embedder(args.embedder))
        index, reranker = HybridIndex(words, meaning), EmbeddingReranker(meaning)
    else:
        index, reranker = words, LexicalCoverage(words.weights())
    found = [chunk for chunk, _ in index.search(args.question, k=40)]
    print(f"{len(chunks)} chunks, {len(found)} retrieved")
    for method in ("mcts", "greedy", "mmr", "topk"):
        chosen = select(
            args.question,
            found,
            args.budget,
            method=method,
            reranker=reranker,
            template=TEMPLATE,
        )
        print(f"{method:>7}  {chosen.summary()}  {', '.join(chosen.ids)}")
        if method == "mcts":
            best = chosen
    print(f"\n{best.text}")
    if args.lm:
        prompt = render(TEMPLATE, {"context": best.text, "question": args.question})
        print(f"\n{st.LM(args.lm)(prompt, max_tokens=100).strip()}")


if __name__ == "__main__":
    main()
