"""The playground at / and the API's reference at /docs: plain files that the browser runs as they are."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).resolve().parent.parent / "static"
# Asked for again each time (a 304 if it is the same), so that modules of two versions never meet in one page.
CACHE = {"Cache-Control": "no-cache"}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=CACHE)


@router.get("/docs")
async def reference() -> FileResponse:
    return FileResponse(FOLDER / "docs.html", headers=CACHE)


class Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(CACHE)
        return response
