"""Log lines as JSON, one object a line, each with the id of the request it belongs to.

::

    {
        "time": "2026-01-31T12:00:00.123Z",
        "level": "INFO",
        "logger": "sharpen.serve.api.guard",
        "message": "POST /v1/completions 200",
        "request_id": "...",
        "status": 200,
        "seconds": 0.12,
    }
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

__all__ = ["JsonFormatter", "request_id", "use_json_logs"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that the present task answers."""

_FIELDS = ("method", "path", "status", "seconds", "client")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        document = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            document["request_id"] = request_id.get()
        document |= {name: value for name in _FIELDS if (value := getattr(record, name, None))}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def use_json_logs() -> None:
    """Write the package's log so to standard error, with a line for every request."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("sharpen")
    logger.handlers = [handler]
    logger.propagate = False
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
