"""Routes that find their arguments by themselves: FastAPI's way of it takes longer than a small prediction."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, get_origin

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from app.http.problems import invalid
from app.schemas import Query

Endpoint = Callable[..., Awaitable[Response]]
Arguments = Callable[[Request], Awaitable[dict[str, Any]]]
Asked = TypeVar("Asked", bound=Query)
FINDER = "finds_arguments"


def given_by(arguments: Arguments) -> Callable[[Endpoint], Endpoint]:
    """What the function is called with. Its signature still describes it, and must ask for the same."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, FINDER, arguments)
        return endpoint

    return mark


class DirectRoute(APIRoute):
    """A route like any other, but for functions that are marked ``given_by``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Endpoint = self.endpoint
        arguments: Arguments | None = getattr(endpoint, FINDER, None)
        if arguments is None:
            return super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await endpoint(**await arguments(request))

        return handle


def read_query(request: Request, model: type[Asked]) -> Asked:
    """The query string as ``model``: of what is given several times, a list gets all and anything else the last. Raises
    Problem."""
    sent = request.query_params
    fields = model.model_fields
    many = {name for name in sent if name in fields and get_origin(fields[name].annotation) is list}
    try:
        return model.model_validate({name: sent.getlist(name) if name in many else sent[name] for name in sent})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None
