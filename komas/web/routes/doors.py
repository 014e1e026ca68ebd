"""A venue's own REST interface, under its name: ``/binance/api/v3/...``. What is said there is the venue's protocol."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, Response, request

from komas.venues.core.door import DoorRequest, RestDoor
from komas.web.routes.control import address_of
from komas.web.services import Services

NAME: Final = "doors"  # of the blueprint: komas's own rules for callers and parameters are not those of a venue
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def doors(services: Services) -> Blueprint:
    """The routes."""
    routes = Blueprint(NAME, __name__)
    for door in services.doors:
        _open(routes, services, door)
    return routes


def _open(routes: Blueprint, services: Services, door: RestDoor) -> None:
    @routes.route(f"/{door.name}/<path:path>", methods=_METHODS, endpoint=door.name)
    async def answer(path: str) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        client = address_of(services)
        found = await door.answer(DoorRequest(request.method, f"/{path}", request.query_string, headers, client))
        return Response(found.body, found.status, found.headers)
