"""Routes that parse their own arguments: FastAPI's dependency injection takes longer than a small prediction."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, get_origin

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from app.http.problems import invalid
from app.schemas.requests import Query

Endpoint = Callable[..., Awaitable[Response]]
Arguments = Callable[[Request], Awaitable[dict[str, Any]]]
Model = TypeVar("Model", bound=Query)
ARGUMENTS = "parse_arguments"


def arguments_from(arguments: Arguments) -> Callable[[Endpoint], Endpoint]:
    """Marks an endpoint: ``arguments`` computes what it is called with.

    FastAPI still describes the route by the endpoint's signature, so that both must agree.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, ARGUMENTS, arguments)
        return endpoint

    return mark


class DirectRoute(APIRoute):
    """Calls endpoints that are marked with ``arguments_from`` directly; all others are called as in ``APIRoute``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Endpoint = self.endpoint
        arguments: Arguments | None = getattr(endpoint, ARGUMENTS, None)
        if arguments is None:
            return super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await endpoint(**await arguments(request))

        return handle


def read_query(request: Request, model: type[Model]) -> Model:
    """The query string as ``model``. Of a parameter that occurs several times, a list field receives all values and any
    other field the last. Raises Problem."""
    sent = request.query_params
    fields = model.model_fields
    many = {name for name in sent if name in fields and get_origin(fields[name].annotation) is list}
    try:
        return model.model_validate({name: sent.getlist(name) if name in many else sent[name] for name in sent})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None
