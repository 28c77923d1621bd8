"""A browser's session: its token, kept where no script of any page can read it."""

from fastapi import APIRouter, Request, Response

from app.http.auth import SESSION_COOKIE, AnyKey, Bearer
from app.http.problems import MISSING_TOKEN, Problem
from app.openapi import problems
from app.schemas import Session
from app.store.records import KeyRecord

router = APIRouter(prefix="/session", tags=["session"])


@router.post("", summary="Trade a bearer token for a cookie", responses=problems(401, 403))
async def sign_in(request: Request, response: Response, key: AnyKey, credentials: Bearer) -> Session:
    if credentials is None:
        raise Problem(MISSING_TOKEN, "send Authorization: Bearer <token>")
    # The token itself: revoking its key ends the session, and every app process knows it. It goes with the browser.
    response.set_cookie(
        SESSION_COOKIE,
        credentials.credentials,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _session(key)


@router.get("", summary="Who is signed in", responses=problems(401))
async def who(key: AnyKey) -> Session:
    return _session(key)


@router.delete("", status_code=204, summary="Sign out: the cookie goes, the key stays", responses=problems(401, 403))
async def sign_out(response: Response, _: AnyKey) -> None:
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")


def _session(key: KeyRecord) -> Session:
    return Session(name=key.name, scopes=sorted(key.scopes))
