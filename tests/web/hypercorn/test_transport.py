"""What a route finds in its scope, whatever server is in front of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from komas.web.hypercorn.transport import ClientTransport, transport_of, with_transport


@pytest.mark.parametrize("scope", [None, {}, {"state": None}, {"state": {}}, {"state": {"another's": 1}}])
def test_another_server_offers_nothing(scope: dict[str, Any] | None) -> None:
    """As ASGI allows: a state is optional, and its keys are anybody's."""
    assert transport_of(scope) == ClientTransport()


def test_a_transport_goes_into_a_copy_of_the_state() -> None:
    """The connection's state is shared by its requests, and a transport belongs to one of them."""
    state = {"lifespan": "the application's"}
    transport = ClientTransport(leaving=trio.CancelScope())
    assert transport_of({"state": with_transport(state, transport)}) is transport
    assert transport_of({"state": state}) == ClientTransport()
