"""Middleware for every request: limits of size and time, security headers, and the response to unexpected errors."""

import asyncio
import logging
from contextlib import suppress

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.limits import BytesInFlight
from app.http.problems import BODY_TOO_LARGE, BODY_TOO_SLOW, INTERNAL, URL_TOO_LONG, Problem, megabytes
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


# Longest pause between two parts of a body: bytes are reserved for a body that was announced and does not arrive.
BODY_TIMEOUT_S = 30.0


# How much of a body that is too large is received and dropped, as a multiple of what is accepted. A client that is cut
# off while it sends sees a broken connection, and behind a proxy a 502, instead of the answer that says why.
DROPPED = 4


class SizeLimits:
    """Refuses URLs and bodies that are too long; nothing of such a body is kept.

    The bytes in flight are counted from the first read of a body, which comes after authentication.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, in_flight: BytesInFlight, body_timeout_s: float = BODY_TIMEOUT_S
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.in_flight = in_flight
        self.body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        announced = _announced(scope)
        if refusal is not None:
            if b"expect" not in dict(scope["headers"]):  # otherwise the client waits for an answer before it sends
                await self._drop(receive)
            await refusal.response()(scope, receive, send)
            return
        received = reserved = 0
        key = ""
        complete = False

        async def counted() -> Message:
            nonlocal received, reserved, key, complete
            if complete:  # only a disconnect can follow, for which an event stream waits without a timeout
                return await receive()
            key = key or scope.get("state", {}).get("key", "")
            if announced > reserved:
                self.in_flight.reserve(key, announced)
                reserved = announced
            message = await self._receive(receive)
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self.max_body_bytes:
                await self._drop(receive)
                raise self._too_large(f"more than {megabytes(self.max_body_bytes)}")
            if received > reserved:
                self.in_flight.reserve(key, received - reserved)
                reserved = received
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.in_flight.release(key, reserved)

    async def _drop(self, receive: Receive) -> None:
        """Receives and drops the rest of a body, or as much of it as is worthwhile."""
        left = DROPPED * self.max_body_bytes
        with suppress(Problem):
            while left > 0:
                message = await self._receive(receive)
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))

    async def _receive(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self.body_timeout_s):
                return await receive()
        except TimeoutError:
            text = f"no more of the body arrived for {self.body_timeout_s:.0f} s"
            raise Problem(BODY_TOO_SLOW, text, headers={"Connection": "close"}) from None

    def _refusal(self, scope: Scope) -> Problem | None:
        length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if length > MAX_URL_BYTES:
            return Problem(URL_TOO_LONG, f"the URL has {length} bytes, at most {MAX_URL_BYTES} are accepted; use POST")
        announced = _announced(scope)
        return self._too_large(megabytes(announced)) if announced > self.max_body_bytes else None

    def _too_large(self, sent: str) -> Problem:
        most = megabytes(self.max_body_bytes)
        text = f"the request has {sent}, at most {most} are accepted: send fewer or smaller images"
        return Problem(BODY_TOO_LARGE, text, headers={"Connection": "close"})


def _announced(scope: Scope) -> int:
    """Content-Length; 0 without one."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else 0


class StoreTime:
    """Gives each request one limit for all that it asks Redis for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
