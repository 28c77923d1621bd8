"""Meta-model versions."""

from fastapi import APIRouter

from app.http.auth import AdminKey, AnyKey
from app.openapi import problems
from app.schemas.responses import Model, Models
from app.services import CurrentServices

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="List versions, newest first", responses=problems(401))
async def versions(services: CurrentServices, _: AnyKey) -> Models:
    return Models(models=[Model.of(record) for record in await services.store.models.all()])


@router.post(
    "/{version}/activate",
    summary="Use this version for new episodes with images of its kind; existing ones keep theirs",
    responses=problems(401, 403, 404),
)
async def activate(version: str, services: CurrentServices, _: AdminKey) -> Model:
    return Model.of(await services.store.models.activate(version))
