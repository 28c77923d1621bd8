"""Each request's id, log line and span."""

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry import logs, tracing

log = logging.getLogger(__name__)
GIVEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
HEADER = b"x-request-id"
# Asked for all the time by what watches the service.
QUIET = ("/healthz", "/readyz", "/metrics", "/static/")


class TellRequests:
    """The client's own X-Request-ID is kept if it has 1 to 64 letters, digits, dots, dashes and underscores."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        id = given.decode() if GIVEN.fullmatch(given) else secrets.token_hex(8)
        started, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, id.encode())]
            await send(message)

        parent = headers.get(b"traceparent", b"").decode("latin-1") or None
        with logs.working_on(request_id=id), tracing.span(f"HTTP {scope['method']}", parent, request_id=id):
            try:
                await self.app(scope, receive, told)
            finally:
                _tell(scope, status, time.perf_counter() - started)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    path = scope.get("raw_path", b"").decode("latin-1")  # as it was sent: without line breaks, and without the query
    fields = {"method": scope["method"], "path": path[:200], "status": status, "seconds": round(seconds, 4)}
    key = scope.get("state", {}).get("key")
    if key:
        fields["key"] = key
    id = scope.get("path_params", {}).get("id")
    if id:
        fields["training" if path.startswith("/train") else "episode"] = id
    level = logging.DEBUG if path.startswith(QUIET) else logging.INFO
    log.log(level, "%s %s %d", scope["method"], path[:200], status, extra={"fields": fields})
