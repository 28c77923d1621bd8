"""Middleware for every request: limits of size and time, security headers, and the response to unexpected errors."""

import logging

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.limits import BytesInFlight, Upload
from app.http.problems import INTERNAL, URL_TOO_LONG, Problem
from app.store import deadline

log = logging.getLogger(__name__)

# An image of up to about 6 KB of base64url, and the rest of the URL.
MAX_URL_BYTES = 6 * 1024 + 512
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class SizeLimits:
    """Refuses URLs and bodies that are too long; nothing of such a body is kept.

    ``scope["state"]["upload"]`` is the request's Upload.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, in_flight: BytesInFlight) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = Upload(scope, receive, self.in_flight, self.max_body_bytes)
        refusal = _too_long(scope) or upload.refusal()
        if refusal is not None:
            if b"expect" not in dict(scope["headers"]):  # otherwise the client waits for an answer before it sends
                await upload.drop()
            await refusal.response()(scope, receive, send)
            return
        scope.setdefault("state", {})["upload"] = upload
        try:
            await self.app(scope, upload.receive, send)
        finally:
            upload.let_go()


def _too_long(scope: Scope) -> Problem | None:
    length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if length <= MAX_URL_BYTES:
        return None
    return Problem(URL_TOO_LONG, f"the URL has {length} bytes, at most {MAX_URL_BYTES} are accepted; use POST")


class StoreTime:
    """Gives each request one limit for all that it asks Redis for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with deadline.limited():
            await self.app(scope, receive, send)


class SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]  # no route sets one of these
            await send(message)

        await self.app(scope, receive, with_headers)


class HeadRequests:
    """Answers HEAD as GET: the server sends the headers of the response and drops its body. A stream ends at once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        with anyio.CancelScope() as answer:

            async def without_rest(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # What the router found, for logs and metrics; the method stays HEAD for them and the server.
                    scope.update(as_get, method="HEAD")
                if message.get("more_body"):
                    message["more_body"] = False
                    answer.cancel()
                await send(message)

            await self.app(as_get, receive, without_rest)


class UnexpectedErrors:
    """Answers exceptions that nothing else has caught, inside the middleware for metrics, logs and request ids.

    An exception handler of the app would answer outside it, so that a 500 would have neither a metric nor a request id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            return  # in the middle of its body: no error of the service, and no client left to answer
        except Exception:
            if started:  # too late for another response: the server closes the connection, and logs the error
                raise
            log.exception("%s failed", scope["method"])
            response = Problem(INTERNAL, "an unexpected error occurred in the service and was logged").response()
            await response(scope, receive, send)
