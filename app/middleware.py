"""What holds for every request before a route sees it: size limits, and headers that browsers heed."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BODY_TOO_LARGE, URL_TOO_LONG, Problem

# An image of up to about 6 KB of base64url, and the rest of the URL.
MAX_URL_BYTES = 6 * 1024 + 512
SECURITY_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# FastAPI's page of the API loads its script from elsewhere.
WITHOUT_POLICY = ("/docs", "/redoc")


class SizeLimits:
    """Refuses a longer URL, and a longer body as soon as it is known to be one, whether or not it was announced."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if length > MAX_URL_BYTES:
            return Problem(URL_TOO_LONG, f"the URL has {length} bytes, at most {MAX_URL_BYTES} are taken; use POST")
        announced = dict(scope["headers"]).get(b"content-length", b"")
        return self._too_large() if announced.isdigit() and int(announced[:20]) > self.max_body_bytes else None

    def _too_large(self) -> Problem:
        headers = {"Connection": "close"}
        return Problem(BODY_TOO_LARGE, f"a request may have {self.max_body_bytes} bytes at most", headers=headers)


class SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                if not scope["path"].startswith(WITHOUT_POLICY):
                    headers["content-security-policy"] = CONTENT_SECURITY_POLICY
            await send(message)

        await self.app(scope, receive, with_headers)
