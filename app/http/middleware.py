"""What holds for every request around its route: size limits, headers that browsers heed, answers to our own errors."""

import asyncio
import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.limits import BytesInFlight
from app.http.problems import BODY_TOO_LARGE, BODY_TOO_SLOW, INTERNAL, URL_TOO_LONG, Problem

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


# Between two pieces of a body: room is kept for what was announced and does not come.
PATIENCE_S = 30.0


class SizeLimits:
    """Refuses a longer URL, and a longer body as soon as it is known to be one, whether or not it was announced.

    What is in flight is counted from the first read of a body, which is after the key was checked.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, in_flight: BytesInFlight, patience_s: float = PATIENCE_S
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.in_flight = in_flight
        self.patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        announced = _announced(scope)
        received = reserved = 0
        key = ""
        whole = False

        async def counted() -> Message:
            nonlocal received, reserved, key, whole
            if whole:  # nothing more comes but the client's leaving, for which a stream waits as long as it lasts
                return await receive()
            key = key or scope.get("state", {}).get("key", "")
            if announced > reserved:
                self.in_flight.reserve(key, announced)
                reserved = announced
            message = await self._soon(receive)
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self.max_body_bytes:
                raise self._too_large()
            if received > reserved:
                self.in_flight.reserve(key, received - reserved)
                reserved = received
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.in_flight.release(key, reserved)

    async def _soon(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self.patience_s):
                return await receive()
        except TimeoutError:
            text = f"nothing more of the body came for {self.patience_s:.0f} s"
            raise Problem(BODY_TOO_SLOW, text, headers={"Connection": "close"}) from None

    def _refusal(self, scope: Scope) -> Problem | None:
        length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if length > MAX_URL_BYTES:
            return Problem(URL_TOO_LONG, f"the URL has {length} bytes, at most {MAX_URL_BYTES} are taken; use POST")
        return self._too_large() if _announced(scope) > self.max_body_bytes else None

    def _too_large(self) -> Problem:
        headers = {"Connection": "close"}
        return Problem(BODY_TOO_LARGE, f"a request may have {self.max_body_bytes} bytes at most", headers=headers)


def _announced(scope: Scope) -> int:
    """Content-Length; 0 without one."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else 0


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


class OwnErrors:
    """Answers what nothing else has caught, inside of all that counts, logs and marks answers.

    (An exception handler of the app would answer outside of it: no metric and no request id would tell of a 500.)
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
            return  # in the middle of its body: nobody is left to be answered, and nothing went wrong here
        except Exception:
            if started:  # too late for another answer: the server cuts this one off, and logs it
                raise
            log.exception("%s failed", scope["method"])
            answer = Problem(INTERNAL, "the service met an error of its own; it was logged").response()
            await answer(scope, receive, send)
