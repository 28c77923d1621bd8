"""The id, log line and span of each request."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry import logs, tracing

log = logging.getLogger(__name__)
VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
HEADER = b"x-request-id"
# Polled by monitoring, or requested with every page: logged at level DEBUG.
QUIET = ("/healthz", "/readyz", "/metrics", "/static/")


class LogRequests:
    """Gives each request an id, logs it, and traces it.

    A client's X-Request-ID is kept if it consists of 1 to 64 letters, digits, dots, dashes and underscores.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        id = given.decode() if VALID_ID.fullmatch(given) else secrets.token_hex(8)
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, id.encode())]
            await send(message)

        parent = headers.get(b"traceparent", b"").decode("latin-1") or None
        with logs.with_fields(request_id=id), tracing.span(f"HTTP {scope['method']}", parent, request_id=id):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                _log(scope, status, time.perf_counter() - started)


def _log(scope: Scope, status: int, seconds: float) -> None:
    path = scope.get("raw_path", b"").decode(
        "latin-1"
    )  # still percent-encoded, so that it has no line breaks; without the query
    fields = {"method": scope["method"], "path": path[:200], "status": status, "seconds": round(seconds, 4)}
    key = scope.get("state", {}).get("key")
    if key:
        fields["key"] = key
    id = scope.get("path_params", {}).get("id")
    if id:
        fields["training" if path.startswith("/train") else "episode"] = id
    level = logging.DEBUG if path.startswith(QUIET) else logging.INFO
    log.log(level, "%s %s %d", scope["method"], path[:200], status, extra={"fields": fields})
