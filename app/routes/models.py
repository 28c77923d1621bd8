"""Meta-model versions."""

from fastapi import APIRouter

from app.http.auth import AdminKey, AnyKey
from app.openapi import problems
from app.schemas import Model, Models
from app.services import Held

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="List versions, newest first", responses=problems(401))
async def versions(held: Held, _: AnyKey) -> Models:
    return Models(models=[Model.of(record) for record in await held.store.models.all()])


@router.post(
    "/{version}/activate",
    summary="Adapt new episodes from this version; running ones keep theirs",
    responses=problems(401, 403, 404),
)
async def activate(version: str, held: Held, _: AdminKey) -> Model:
    return Model.of(await held.store.models.activate(version))
