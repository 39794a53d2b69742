"""``sharpen text rag``: which chunks of documents go into a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app
from sharpen.cli.progress import bar, observe

__all__ = ["rag"]

rag = new_app("Chunks of documents for a prompt, under a budget of tokens.")

_SUFFIXES = (".txt", ".md", ".rst")
_TEMPLATE = "{{context}}\n\nQuestion: {{question}}\nAnswer:"

Index = Annotated[Path, typer.Argument(help="What `rag index` has written.", show_default=False)]
Question = Annotated[str, typer.Argument(help="What is asked.", show_default=False)]
Budget = Annotated[int, typer.Option(help="Most tokens of the prompt, the question's included.")]
Reranker = Annotated[
    str | None,
    typer.Option(help="Scores by words or meaning; default meaning where the index has it."),
]
Method = Annotated[
    str, typer.Option(help="mcts, topk, mmr, greedy, beam, knapsack, or exhaustive.")
]
Retrieved = Annotated[int, typer.Option("--retrieve", help="Chunks that the index proposes.")]
Seed = Annotated[int, typer.Option(help="Of ties.")]


@command(rag, "index", example="sharpen text rag index docs -o docs.npz")
def index(
    sources: Annotated[
        list[Path], typer.Argument(help="Files, or folders of .txt, .md and .rst files.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The index, a .npz file.")],
    size: Annotated[int, typer.Option(help="Most tokens of a chunk.")] = 200,
    overlap: Annotated[int, typer.Option(help="Tokens that neighbours share.")] = 0,
    by: Annotated[str, typer.Option(help="Cut between sentences or tokens.")] = "sentences",
    embedder: Annotated[
        str | None,
        typer.Option(help="Also index meaning: wordllama, minilm-l6, or a model's folder."),
    ] = None,
) -> Output:
    """Cut documents into chunks and index their words (BM25), and their meaning if you like."""
    from sharpen.core.embedding import open_embedder
    from sharpen.core.errors import DataError
    from sharpen.text.rag import BM25Index, Chunker, EmbeddingIndex, HybridIndex

    chunker = Chunker(size, overlap, by=by)  # type: ignore[arg-type]  # checked there
    files = [file for source in sources for file in _files(source)]
    chunks = [chunk for file in files for chunk in chunker.split(_read(file), str(file))]
    if not chunks:
        raise DataError(f"there is no text in {', '.join(map(str, sources))}.")
    found = BM25Index(chunks)
    if embedder is None:
        found.save(output)
    else:
        opened = open_embedder(embedder)
        name = str(Path(embedder).resolve()) if Path(embedder).exists() else embedder
        with observe() as observer, bar(observer, "embedding", len(chunks)) as advance:
            meaning = EmbeddingIndex(chunks, opened, on_progress=advance)
        HybridIndex(found, meaning).save(output, name)
    tokens = sum(chunk.tokens for chunk in chunks)
    document = {
        "format": 1,
        "output": str(output),
        "files": len(files),
        "chunks": len(chunks),
        "words": len(found.vocabulary),
        "tokens": tokens,
        "embedder": embedder,
    }

    def render(console: Any) -> None:
        console.print(
            f"{len(files):,} files, {len(chunks):,} chunks, {tokens:,} tokens: {output}",
            markup=False,
            soft_wrap=True,
        )

    return Output(document, render)


@command(rag, "select", example='sharpen text rag select docs.npz "How do I resume?" --compare')
def select(
    index: Index,
    question: Question,
    budget: Budget = 1024,
    method: Method = "mcts",
    retrieve: Retrieved = 60,
    reranker: Reranker = None,
    seed: Seed = 0,
    compare: Annotated[bool, typer.Option(help="Show what each method chooses.")] = False,
) -> Output:
    """Choose chunks for a question and print them in the order of the prompt."""
    from sharpen.text.rag import METHODS

    opened, chunks = _open(index, question, retrieve)
    scorer = _reranker(opened, reranker)
    chosen = _select(scorer, chunks, question, budget, method, seed)
    others = {}
    if compare:
        names = [n for n in METHODS if n not in (method, "exhaustive") or n == "mcts"]
        if len(chunks) <= 8:
            names.append("exhaustive")
        others = {n: _select(scorer, chunks, question, budget, n, seed) for n in names}
    others[method] = chosen
    document: dict[str, Any] = {"format": 1, "method": method, "budget": budget}
    document |= {"retrieved": len(chunks), **chosen.to_dict()}
    if compare:
        document["compared"] = {
            name: {key: one.to_dict()[key] for key in ("ids", "tokens", "score", "evaluations")}
            for name, one in others.items()
        }

    def render(console: Any) -> None:
        if compare:
            for name, one in others.items():
                console.print(f"{name:>10}  {one.summary()}", markup=False)
            console.print()
        else:
            console.print(f"{chosen.summary()}\n", markup=False)
        for name in chosen.ids:
            console.print(f"  {name}", markup=False, soft_wrap=True)
        console.print(f"\n{chosen.text}", markup=False, soft_wrap=True)

    return Output(document, render)


@command(rag, "ask", example='sharpen text rag ask docs.npz "How do I resume?" --lm local:smollm2')
def ask(
    index: Index,
    question: Question,
    lm: Annotated[
        str | None,
        typer.Option("--lm", help="The model: local:NAME, http://HOST:PORT/v1 or scripted:FILE."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Its name at the server, where that has several.")
    ] = None,
    budget: Budget = 1024,
    method: Method = "mcts",
    retrieve: Retrieved = 60,
    reranker: Reranker = None,
    seed: Seed = 0,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of the answer.")] = 256,
) -> Output:
    """Let a model answer from the chosen chunks."""
    from sharpen.core.lm import LM
    from sharpen.text.prompts.template import render as filled

    client = LM(lm, options={} if model is None else {"model": model})
    opened, chunks = _open(index, question, retrieve)
    scorer = _reranker(opened, reranker)
    chosen = _select(scorer, chunks, question, budget, method, seed)
    prompt = filled(_TEMPLATE, {"context": chosen.text, "question": question})
    answer = client(prompt, max_tokens=max_tokens).strip()
    document = {"format": 1, "answer": answer, "method": method, "ids": chosen.ids}
    document |= {"tokens": chosen.tokens, "budget": budget}

    def render(console: Any) -> None:
        console.print(answer, markup=False, soft_wrap=True)
        console.print(f"\nfrom {', '.join(chosen.ids) or 'nothing'}", markup=False, soft_wrap=True)

    return Output(document, render)


def _files(source: Path) -> list[Path]:
    """A file, or those below a folder whose names end as texts' do."""
    from sharpen.core.errors import MissingFileError

    if not source.exists():
        raise MissingFileError(f"there is no file or folder {source}.")
    if not source.is_dir():
        return [source]
    found = sorted(p for p in source.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    if not found:
        raise MissingFileError(f"{source} has no files that end in {', '.join(_SUFFIXES)}.")
    return found


def _read(file: Path) -> str:
    from sharpen.core.errors import DataError

    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 (byte {error.start}).") from None


def _open(path: Path, question: str, retrieve: int) -> tuple[Any, list[Any]]:
    """The index, and the chunks that it proposes for a question."""
    from sharpen.core.errors import ConfigError
    from sharpen.text.rag import load_index

    if retrieve < 1:
        raise ConfigError(f"--retrieve {retrieve} must be at least 1.")
    opened = load_index(path)
    return opened, [chunk for chunk, _ in opened.search(question, retrieve)]


def _reranker(opened: Any, name: str | None) -> Any:
    """What scores combinations of an index's chunks."""
    from sharpen.core.errors import ConfigError
    from sharpen.text.rag import EmbeddingReranker, HybridIndex, LexicalCoverage

    has_meaning = isinstance(opened, HybridIndex)
    if name is None:
        name = "meaning" if has_meaning else "words"
    if name == "meaning":
        if not has_meaning:
            raise ConfigError(
                "the index has no meaning. Make it with --embedder, such as: sharpen text rag index"
                " FOLDER -o INDEX --embedder minilm-l6"
            )
        return EmbeddingReranker(opened.meaning)
    if name != "words":
        raise ConfigError(f"--reranker '{name}' must be words or meaning.")
    return LexicalCoverage((opened.words if has_meaning else opened).weights())


def _select(
    reranker: Any, chunks: list[Any], question: str, budget: int, method: str, seed: int
) -> Any:
    from sharpen.text.rag import select as choose

    options: dict[str, Any] = {"seed": seed} if method == "mcts" else {}
    return choose(
        question,
        chunks,
        budget,
        method=method,
        reranker=reranker,
        template=_TEMPLATE,
        **options,
    )
