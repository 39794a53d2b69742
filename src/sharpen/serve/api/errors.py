"""Every failure in the shape OpenAI clients expect: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sharpen.core.errors import SharpenError, UserError
from sharpen.serve.admission import OverloadedError

__all__ = ["ApiError", "error_body", "error_response", "install_error_handlers"]

_log = logging.getLogger(__name__)
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "internal_server_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status.
        message: what is wrong and how to mend it.
        param: the request's field.
        code: a word for programs.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON body of an error."""
    kind = _TYPES.get(status, "invalid_request_error")
    message = message.encode("utf-8", "replace").decode()  # requests may hold half characters
    param = param.encode("utf-8", "replace").decode() if param is not None else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The whole answer; says when to try again, and how to authenticate."""
    extra = dict(headers or {})
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        extra.setdefault("Retry-After", "1")
    body = error_body(status, message, param=param, code=code)
    return JSONResponse(body, status_code=status, headers=extra)


def install_error_handlers(app: FastAPI) -> None:
    """Give every kind of failure of ``app`` the common shape."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return error_response(error.status, str(error), param=error.param, code=error.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part != "body"]
        if first["type"] == "json_invalid":
            reason = first.get("ctx", {}).get("error", first["msg"])
            return error_response(400, f"the body is not JSON: {reason}")
        param = ".".join(place) or None
        return error_response(400, f"{param or 'the body'}: {first['msg']}.", param=param)

    @app.exception_handler(SharpenError)
    async def failed(request: Request, error: SharpenError) -> JSONResponse:
        if isinstance(error, OverloadedError):
            again = {"Retry-After": str(error.retry_after_s)}
            return error_response(429, str(error), code="overloaded", headers=again)
        if isinstance(error, UserError):
            named = re.match(r"(\w+)=", str(error))  # our messages begin with field=value
            return error_response(400, str(error), param=named[1] if named else None)
        _log.error("%s: %s", type(error).__name__, error)
        return error_response(500, str(error))

    @app.exception_handler(UnicodeEncodeError)
    async def half(request: Request, error: UnicodeEncodeError) -> JSONResponse:
        what = f"the body has a lone surrogate, \\u{ord(error.object[error.start]):04x}"
        return error_response(400, f"{what}, which is half a character.")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}."
        return error_response(error.status_code, message, headers=error.headers)

    @app.exception_handler(Exception)
    async def crashed(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "the server failed on this request; its log says why.")
