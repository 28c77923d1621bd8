"""Every error response as RFC 9457 problem+json: what is wrong, and where."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, compile_path

from app.store.errors import (
    REFUSING,
    UNAVAILABLE,
    Conflict,
    Gone,
    IdempotencyConflict,
    NotFound,
    QueueFull,
    StoreFull,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20


@dataclass(frozen=True)
class ProblemType:
    """A kind of problem. Its URI is stable; clients may branch on it."""

    name: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        return f"/problems/{self.name}"


MALFORMED_BODY = ProblemType("malformed-body", 400, "The body cannot be parsed")
MISSING_TOKEN = ProblemType("missing-token", 401, "A bearer token is needed")
INVALID_TOKEN = ProblemType("invalid-token", 401, "The bearer token is unknown or revoked")
MISSING_SCOPE = ProblemType("missing-scope", 403, "The token lacks the required scope")
MISSING_HEADER = ProblemType("missing-header", 403, "The request may come from another site")
NOT_FOUND = ProblemType("not-found", 404, "Not found")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "Method not allowed")
NOT_READY = ProblemType("not-ready", 409, "The episode is not ready")
EPISODE_FAILED = ProblemType("episode-failed", 409, "The episode failed")
CONFLICT = ProblemType("conflict", 409, "The current state does not allow this")
BODY_TOO_SLOW = ProblemType("body-too-slow", 408, "The body did not arrive in time")
GONE = ProblemType("gone", 410, "Expired or deleted")
BODY_TOO_LARGE = ProblemType("body-too-large", 413, "The request is too large")
ARCHIVE_TOO_LARGE = ProblemType("archive-too-large", 413, "The archive expands to too many bytes")
URL_TOO_LONG = ProblemType("url-too-long", 414, "The URL is too long")
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", 415, "The content type is not supported")
INVALID_REQUEST = ProblemType("invalid-request", 422, "A field is invalid")
UNKNOWN_FIELD = ProblemType("unknown-field", 422, "Unknown field")
INVALID_BASE64 = ProblemType("invalid-base64", 422, "Invalid base64")
INVALID_IMAGE = ProblemType("invalid-image", 422, "The image cannot be read")
DECODING_TOO_SLOW = ProblemType("decoding-too-slow", 422, "The images take too long to decode")
EMPTY_LABEL = ProblemType("empty-label", 422, "A label is empty")
TOO_FEW_CLASSES = ProblemType("too-few-classes", 422, "Too few classes")
TOO_MANY_CLASSES = ProblemType("too-many-classes", 422, "Too many classes")
TOO_MANY_SHOTS = ProblemType("too-many-shots", 422, "Too many images of one class")
TOO_MANY_IMAGES = ProblemType("too-many-images", 422, "Too many images")
LABELS_MISMATCH = ProblemType("labels-mismatch", 422, "The numbers of labels and images differ")
INVALID_ARCHIVE = ProblemType("invalid-archive", 422, "The archive is invalid")
IDEMPOTENCY_KEY_REUSED = ProblemType("idempotency-key-reused", 422, "The idempotency key was used for another request")
UNKNOWN_DATASET = ProblemType("unknown-dataset", 422, "Unknown data set")
RATE_LIMITED = ProblemType("rate-limited", 429, "Too many requests with this key")
TOO_MUCH_AT_ONCE = ProblemType("too-much-at-once", 429, "Too much unfinished work of this key")
INTERNAL = ProblemType("internal", 500, "Unexpected error")
QUEUE_FULL = ProblemType("queue-full", 503, "The queue is full")
STORE_FULL = ProblemType("store-full", 503, "The store is full")
BUSY = ProblemType("busy", 503, "The service is busy")
UNAVAILABLE_NOW = ProblemType("unavailable", 503, "Temporarily unavailable")
HTTP_ERROR = {kind.status: kind for kind in (MALFORMED_BODY, NOT_FOUND, METHOD_NOT_ALLOWED, INTERNAL)}


class Problem(HTTPException):
    """An error response, raised anywhere while a request is served; ``field`` and ``image`` say what is invalid."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        field: str | None = None,
        image: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(kind.status, detail, headers)
        self.kind = kind
        location = {"field": field, "image": image}
        self.more = {name: value for name, value in location.items() if value is not None} | more

    def body(self) -> dict[str, Any]:
        kind = self.kind
        return {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": self.detail} | self.more

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.kind.status, self.headers, media_type=MEDIA_TYPE)


def invalid(errors: Sequence[Any]) -> Problem:
    """The problem for pydantic's validation errors; the first one determines the type and the field."""
    findings = [{"field": _path(error["loc"]), "detail": error["msg"]} for error in errors[:MAX_ERRORS]]
    kind = {"json_invalid": MALFORMED_BODY, "extra_forbidden": UNKNOWN_FIELD}.get(errors[0]["type"], INVALID_REQUEST)
    detail = "; ".join(f"{f['field']}: {f['detail']}" if f["field"] else f["detail"] for f in findings)
    if kind is MALFORMED_BODY:
        return Problem(kind, detail)
    return Problem(kind, detail, field=findings[0]["field"] or None, errors=findings)


def megabytes(size: int) -> str:
    """Bytes as users read them, rounded up: what exceeds a limit by a few bytes does not look like the limit."""
    return f"{math.ceil(100 * size / 2**20) / 100:g} MB"


def _path(location: Sequence[str | int]) -> str:
    """``support[3].label`` of ("body", "support", 3, "label")."""
    parts = location[1:] if location and location[0] in ("body", "query", "path", "header") else location
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path[:200]


def install(app: FastAPI) -> None:
    """Turns every error response, including those of FastAPI itself, into a problem."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if not isinstance(error, Problem):
            if error.status_code == 404 and (elsewhere := _without_slash(request)):
                return RedirectResponse(elsewhere)
            kind = HTTP_ERROR.get(error.status_code, ProblemType("http-error", error.status_code, "Refused"))
            detail = {
                404: f"no route matches {request.url.path}",
                405: f"{request.method} is not allowed at {request.url.path}",
            }.get(error.status_code, str(error.detail))
            headers = dict(error.headers or {})
            if error.status_code == 405 and (methods := _methods(request)):
                headers["Allow"] = ", ".join(methods)
            error = Problem(kind, detail, headers=headers)
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return invalid(error.errors()).response()

    for refusal, kind in ((NotFound, NOT_FOUND), (Gone, GONE), (Conflict, CONFLICT)):
        _install_refusal(app, refusal, kind)
    _install_refusal(app, IdempotencyConflict, IDEMPOTENCY_KEY_REUSED, field="Idempotency-Key")
    _install_overload(app)


def _without_slash(request: Request) -> str | None:
    """The URL without the slash at its end, if there is a route for it.

    It is relative: behind a proxy, the app knows neither the scheme nor the prefix of the URL that was asked for.
    """
    path = request.scope["path"]
    shorter = dict(request.scope) | {"path": path.removesuffix("/")}
    if not path.endswith("/") or all(route.matches(shorter)[0] is Match.NONE for route in request.app.router.routes):
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    return f"../{quote(shorter['path'].rpartition('/')[2], safe='')}{query}"


def _methods(request: Request) -> list[str]:
    """All methods of the path. (The router itself names only those of the first route that matches.)"""
    described = request.app.openapi()["paths"].items()
    methods = {
        method.upper()
        for path, methods in described
        if compile_path(path)[0].match(request.url.path)
        for method in methods
    }
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _install_refusal(app: FastAPI, refusal: type[Exception], kind: ProblemType, field: str | None = None) -> None:
    @app.exception_handler(refusal)
    async def _refused(_: Request, error: Exception) -> JSONResponse:
        return Problem(kind, str(error), field=field).response()


def _install_overload(app: FastAPI) -> None:
    @app.exception_handler(QueueFull)
    async def _full(_: Request, error: QueueFull) -> JSONResponse:
        kind = TOO_MUCH_AT_ONCE if error.own else QUEUE_FULL
        return Problem(kind, str(error), headers={"Retry-After": str(error.retry_after)}).response()

    @app.exception_handler(StoreFull)
    async def _store_full(_: Request, error: StoreFull) -> JSONResponse:
        return Problem(STORE_FULL, str(error), headers={"Retry-After": str(error.retry_after)}).response()

    async def _unavailable(request: Request, error: Exception) -> JSONResponse:
        # Its text is for the operator: it may name files and addresses.
        log.warning("%s %s: %s", request.method, request.url.path, error)
        text = "the store currently accepts no writes" if isinstance(error, REFUSING) else "the store does not respond"
        return Problem(UNAVAILABLE_NOW, text, headers={"Retry-After": "2"}).response()

    for unavailable in UNAVAILABLE:
        app.add_exception_handler(unavailable, _unavailable)
