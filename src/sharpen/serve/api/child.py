"""A server in a process of its own that dies with its parent.

The parent gives the settings as one JSON argument and reads one JSON line from standard output:
``{"url": ..., "pid": ...}`` once the model answers, or ``{"error": {class, message}}``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sharpen.core.errors import SharpenError
from sharpen.core.fork_server import die_with_parent
from sharpen.serve.api.server import ApiServer, ServerConfig
from sharpen.serve.llm import LLM

__all__ = ["main"]


def main() -> int:
    """Entry point of the child process."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    die_with_parent(request["parent"])
    try:
        server = ApiServer(
            ServerConfig(
                name=request["name"], port=request["port"], api_keys=(request["api_key"],)
            ),
            lambda: LLM(request["model"], dtype=request["dtype"], adapter=request["adapter"]),
        )
        server.run(lambda: _say({"url": server.url, "pid": os.getpid()}))
    except SharpenError as error:
        _say({"error": {"class": type(error).__name__, "message": str(error)}})
        return error.exit_code
    return 0


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
