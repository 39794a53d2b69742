"""What every request passes first: its id, the key, and the limit on the body."""

from __future__ import annotations

import hmac
import logging
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpen.serve.api.errors import ApiError, error_response
from sharpen.serve.api.logs import request_id

__all__ = ["Guard"]

_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware: echoes ``X-Request-Id``, checks the key, refuses large bodies.

    Args:
        app: what it guards.
        api_keys: accepted keys, compared in constant time; none asks for none.
        max_body_bytes: largest request body.
        open_paths: that need no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_keys: Sequence[str],
        max_body_bytes: int,
        open_paths: Sequence[str] = ("/health",),
    ) -> None:
        self.app = app
        self._keys = [key.encode() for key in api_keys]
        self._max_body_bytes = max_body_bytes
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        number = headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        status, begin = 0, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = number
            await send(message)

        token = request_id.set(number)
        try:
            await self._answer(scope, receive, send_with_id, headers)
        finally:
            _log.info(
                "%s %s %d",
                scope["method"],
                scope["path"],
                status,
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.perf_counter() - begin, 6),
                    "client": scope["client"][0] if scope.get("client") else None,
                },
            )
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        try:
            if scope["path"] not in self._open:
                self._check_key(headers.get("authorization", ""))
            self._check_size(_length(headers))
        except ApiError as error:
            response = error_response(error.status, str(error), code=error.code)
            await response(scope, receive, send)
            return
        except HTTPException as error:
            response = error_response(error.status_code, error.detail)
            await response(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            self._check_size(received)
            return message

        await self.app(scope, receive_within_limit, send)

    def _check_key(self, authorization: str) -> None:
        if not self._keys:
            return
        scheme, _, key = authorization.partition(" ")
        given = key.strip().encode()
        known = [hmac.compare_digest(given, one) for one in self._keys]
        if scheme.lower() != "bearer" or not any(known):
            raise ApiError(
                401,
                "the API key is missing or wrong. Send 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
            )

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            # Not an ApiError: the framework would take it for a body that cannot be parsed.
            raise HTTPException(413, f"the body is larger than {self._max_body_bytes} bytes")


def _length(headers: Headers) -> int:
    """What the request says of its body's size; 0 for nothing."""
    given = headers.get("content-length", "")
    return int(given) if given.isascii() and given.isdecimal() else 0
