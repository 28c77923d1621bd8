"""A browser's session: its token is kept in a cookie that scripts cannot read."""

from fastapi import APIRouter, Request, Response

from app.http.auth import SESSION_COOKIE, AnyKey, Bearer
from app.http.problems import MISSING_TOKEN, Problem
from app.openapi import problems
from app.schemas.responses import Limits, Session
from app.services import CurrentServices
from app.settings import Settings
from app.store.records import KeyRecord

router = APIRouter(prefix="/session", tags=["session"])


@router.post("", summary="Sign in: exchange a bearer token for a cookie", responses=problems(401, 403))
async def sign_in(
    request: Request, response: Response, services: CurrentServices, key: AnyKey, credentials: Bearer
) -> Session:
    if credentials is None:
        raise Problem(MISSING_TOKEN, "send Authorization: Bearer <token>")
    # The cookie contains the token itself, so that revoking its key ends the session in every app process. It has no
    # expiry: the browser drops it when it is closed.
    response.set_cookie(
        SESSION_COOKIE,
        credentials.credentials,
        httponly=True,
        samesite="strict",
        secure=_encrypted(request),
    )
    return _session(key, services.settings)


def _encrypted(request: Request) -> bool:
    """Whether the browser uses TLS, perhaps to a proxy, which may or may not say so. (A client that lies about it only
    gets a cookie that it never sends.)"""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    origin = request.headers.get("origin", "").lower()
    return "https" in (request.url.scheme, forwarded) or origin.startswith("https://")


@router.get("", summary="The key that is signed in, and the limits for its requests", responses=problems(401))
async def who(services: CurrentServices, key: AnyKey) -> Session:
    return _session(key, services.settings)


@router.delete(
    "",
    status_code=204,
    response_class=Response,  # an empty body has no content type
    summary="Sign out: delete the cookie; the key stays valid",
    responses=problems(401, 403),
)
async def sign_out(response: Response, _: AnyKey) -> None:
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")


def _session(key: KeyRecord, settings: Settings) -> Session:
    limits = Limits(
        images=settings.max_images,
        classes=settings.max_classes,
        shots=settings.max_shots,
        bytes=settings.max_request_bytes,
    )
    return Session(name=key.name, scopes=sorted(key.scopes), limits=limits)
