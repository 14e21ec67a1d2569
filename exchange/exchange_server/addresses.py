"""Where a request comes from, and who sends it as long as nothing more is known."""

from __future__ import annotations

from fastapi import Request

from exchange.organizations import normal
from exchange.policy import Requester, Role


def nobody(request: Request, door: str) -> Requester:
    """Who asks at the door called `door`, before it is known who that is."""
    return Requester(
        name="",
        role=Role.SYSTEM,
        organization=None,
        purpose=None,
        address=address(request),
        door=door,
    )


def address(request: Request) -> str:
    """The address of the other end, as RFC 5952 writes it; "" where it has none."""
    host = request.client.host if request.client else ""
    try:
        return str(normal(host))
    except ValueError:
        return ""
