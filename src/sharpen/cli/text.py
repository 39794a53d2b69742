"""``sharpen text``: programs made of calls to language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli import text_prompts
from sharpen.cli.common import Output, command, new_app
from sharpen.cli.text_rag import rag

__all__ = ["app"]

app = new_app("Programs made of calls to language models.")
cache = new_app("Replies of language models that are kept.")
app.add_typer(cache, name="cache")
app.add_typer(rag, name="rag")
text_prompts.register(app)

File = Annotated[
    Path | None, typer.Option("--file", help="The cache; default the user's.", show_default=False)
]


@command(cache, "stats", example="sharpen text cache stats")
def stats(file: File = None) -> Output:
    """Print how many replies of which models are kept, and how large they are."""
    held = _open(file)
    if held is None:
        from sharpen.core.lm import default_cache

        document: dict[str, Any] = {"file": str(default_cache()), "replies": 0, "bytes": 0}
        return Output({"format": 1, **document, "models": {}}, lambda c: _render(c, document))
    found = held.stats()
    document = {
        "file": str(found.file),
        "replies": found.replies,
        "bytes": found.bytes,
        "models": found.models,
        "oldest": found.oldest,
        "newest": found.newest,
    }
    return Output({"format": 1, **document}, lambda console: _render(console, document))


@command(cache, "clear", example="sharpen text cache clear --file replies.sqlite")
def clear(file: File = None) -> Output:
    """Forget all replies; what is asked next is paid for again."""
    held = _open(file)
    count = 0 if held is None else held.clear()

    def render(console: Any) -> None:
        console.print(f"{count:,} replies forgotten")

    return Output({"format": 1, "cleared": count}, render)


def _open(file: Path | None) -> Any:
    """The cache; None where the user has none yet."""
    from sharpen.core.errors import MissingFileError
    from sharpen.core.lm import ReplyCache, default_cache

    path = file or default_cache()
    if not path.exists():
        if file is None:
            return None
        raise MissingFileError(f"no such cache: {file}")
    return ReplyCache(path)


def _render(console: Any, document: dict[str, Any]) -> None:
    console.print(f"{document['file']}", soft_wrap=True, markup=False)
    replies = "1 reply" if document["replies"] == 1 else f"{document['replies']:,} replies"
    console.print(f"{replies}, {document['bytes'] / 1e6:,.1f} MB")
    for model, count in document.get("models", {}).items():
        console.print(f"  {model}: {count:,}", markup=False)
