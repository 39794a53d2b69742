"""Where a server is, and which key of the environment is meant for it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from sharpen.core.errors import ConfigError

__all__ = ["key_of_environment", "server_address"]


def server_address(base_url: str | None) -> str:
    """The address of a server, without what follows ``/v1``.

    Args:
        base_url: what the user gave; None takes ``SHARPEN_LLM_BASE_URL``, else ``OPENAI_BASE_URL``.

    Raises:
        ConfigError: there is none, it is none, or it holds a key.
    """
    url = base_url or os.environ.get("SHARPEN_LLM_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    if not url:
        raise ConfigError("no address of a server: give base_url, or set SHARPEN_LLM_BASE_URL.")
    url = url.rstrip("/").removesuffix("/chat/completions")
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad:
        raise ConfigError(f"{url!r:.200} is no address such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise ConfigError("the address holds a name or password: give api_key instead.")
    if parts.query or parts.fragment:
        raise ConfigError(f"the address of {parts.hostname} must end before '?' and '#'.")
    return url if parts.path else f"{url}/v1"


def key_of_environment(base_url: str) -> str | None:
    """The key that the environment has for an address.

    ``SHARPEN_LLM_API_KEY``; ``OPENAI_API_KEY`` only where the address is OpenAI's, or that of
    ``OPENAI_BASE_URL``, so that no server is sent the key of another.
    """
    own = os.environ.get("SHARPEN_LLM_API_KEY")
    if own:
        return own
    known = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
    return os.environ.get("OPENAI_API_KEY") if base_url == known else None
