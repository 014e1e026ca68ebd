"""A venue's own REST interface, under its name: ``/binance/api/v3/...``. What is said there is the venue's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from quart import Blueprint, Response, request

from komas.venues.core.door import DoorAnswer, DoorRequest, RestDoor
from komas.web.access import Caller
from komas.web.services import Services

NAME: Final = "doors"  # of the blueprint: komas's own rules for callers and parameters are not those of a venue
# A large answer is many clients' at once; what is sent to one that does not read is copied on its way.
PIECE_BYTES: Final = 2**16
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
        caller = Caller.of(request.scope, request.headers)
        address = services.access.address(caller)
        connection = f"{address} {caller.peer_port}"
        found = await door.answer(
            DoorRequest(request.method, f"/{path}", request.query_string, headers, address, connection)
        )
        size = len(found.body) + len(found.rest)
        if request.method == "HEAD" or size <= PIECE_BYTES:
            return Response(found.body + found.rest, found.status, found.headers)
        response = Response(_pieces(found), found.status, {**found.headers, "Content-Length": str(size)})
        response.timeout = None  # each piece has a deadline, as every write
        return response


async def _pieces(answer: DoorAnswer) -> AsyncIterator[bytes]:
    for part in (answer.body, answer.rest):
        for begin in range(0, len(part), PIECE_BYTES):
            yield part[begin : begin + PIECE_BYTES]
