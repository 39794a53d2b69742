"""A chat page in the browser: one file without dependencies, a client of the API beside it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

__all__ = ["add_chat_page"]

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


def add_chat_page(app: FastAPI) -> None:
    """Serve the page at ``/``; it needs no key, what it asks of the API does."""
    html = (Path(__file__).parent / "chat.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})
