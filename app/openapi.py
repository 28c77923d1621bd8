"""The parts of the OpenAPI document that FastAPI cannot derive from the routes: bodies and problems."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.http.problems import MEDIA_TYPE
from app.schemas.requests import CorrectionBody, EpisodeBody, PredictBody, TrainBody
from app.schemas.responses import ProblemDetails

# A T and two Ls of 16 x 16 pixels.
EXAMPLE_T = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQAAAAA3iMLMAAAAIElEQVR42mP8z8DEwMDEwMDwgZ+JgYGJrwDCRUOMMG"
    "UAbr0DmB2X2WwAAAAASUVORK5CYII="
)
EXAMPLE_L = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQAAAAA3iMLMAAAAHklEQVR42mP8z8DEwMDEwMD0BcZAQ38FmBgYGGHKAG"
    "zOBB4sq90ZAAAAAElFTkSuQmCC"
)
EXAMPLE_OTHER_L = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQAAAAA3iMLMAAAAIElEQVR42mP8z8DEwMD0hYGJATf6y8HEwMD4n4GJgQEA"
    "aTkEFmJ5tpMAAAAASUVORK5CYII="
)
DESCRIPTION = """
Few-shot image classification: send a few labelled images, receive a classifier whose weights and architecture are
adapted to them, and classify new images with it. Every error response is RFC 9457 problem+json.
"""

_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}

EPISODE_FORM: dict[str, Any] = {
    "type": "object",
    "description": "Either `images` with as many `labels`, in the same order, or `archive`; and `unlabelled`.",
    "additionalProperties": False,
    "properties": {
        "images": _FILES,
        "labels": {"type": "array", "items": {"type": "string"}},
        "archive": _FILE
        | {"description": "a zip file with a folder of images for each class; those in `_unlabelled` have no label"},
        "unlabelled": _FILES | {"description": "images without a label"},
        "steps": {"type": "integer", "minimum": 0},
        "seed": {"type": "integer", "minimum": 0},
        "name": {"type": "string", "maxLength": 200},
        "model": {"type": "string", "maxLength": 200, "default": "auto"},
    },
}
CORRECTION_FORM: dict[str, Any] = {
    "type": "object",
    "description": "Images are added as `images` with as many `labels`, in the same order, or as `archive`, and as "
    "`unlabelled`.",
    "additionalProperties": False,
    "properties": {name: schema for name, schema in EPISODE_FORM["properties"].items() if name != "model"}
    | {
        "remove": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "relabel": {"type": "array", "items": {"type": "string"}, "description": "`<index of the image>=<label>`"},
    },
}
PREDICT_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["episode_id", "images"],
    "properties": {"episode_id": {"type": "string"}, "images": _FILES},
}
EPISODE_EXAMPLE = {
    "support": [{"label": "T", "image": EXAMPLE_T}, {"label": "L", "image": EXAMPLE_L}],
    "unlabelled": [EXAMPLE_OTHER_L],
    "name": "two letters",
}
CORRECTION_EXAMPLE = {
    "remove": [1],
    "relabel": [{"image": 0, "label": "L"}],
    "add": [{"label": "T", "image": EXAMPLE_T}],
    "unlabelled": [EXAMPLE_OTHER_L],
}
PREDICT_EXAMPLE = {"episode_id": "01k8d9w3v4q2x6y7z8a9b0c1d2", "images": [EXAMPLE_T]}

_DESCRIPTIONS = {
    400: "The body cannot be parsed",
    401: "No token, or an invalid one",
    403: "The token lacks the required scope",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "The current state does not allow this",
    410: "Expired or deleted",
    413: "The request is too large",
    414: "The URL is too long",
    415: "The content type is not supported",
    422: "A field or an image is invalid",
    429: "Too many requests or too much unfinished work of this key; see `Retry-After`",
    503: "The service is overloaded, or a part of it is unavailable; see `Retry-After`",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route: the problems with these statuses, and those that every route may return."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    described: dict[int | str, dict[str, Any]] = {}
    keyed = {429} if 401 in statuses else set()
    with_body = {408} if 415 in statuses else set()
    for status in sorted({*statuses, *keyed, *with_body, 413, 414, 503}):
        described[status] = {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
    return described


def body(model: type[BaseModel], example: Any = None, form: dict[str, Any] | None = None) -> dict[str, Any]:
    """``openapi_extra=`` of a route that parses its body itself, as JSON or, with ``form``, as multipart."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    if example is not None:
        content["application/json"]["example"] = example
    if form is not None:
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    """Adds the schemas that the routes only refer to."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document["components"]["schemas"]
    _, named = models_json_schema(
        [(model, "validation") for model in (EpisodeBody, CorrectionBody, PredictBody, TrainBody, ProblemDetails)],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(named["$defs"])
    # FastAPI describes its own validation error, which this service never returns.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for methods in document["paths"].values():
        for operation in methods.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    return document
