"""Starlette's TestClient with one event loop for all requests of a run, as a server has one: by
itself it starts another for each, with threads of its own, which takes as long as the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi.testclient import TestClient


@contextmanager
def in_one_loop() -> Iterator[None]:
    """All clients that ask meanwhile, but those that are entered: these have a loop of their own,
    in which their application begins and ends."""
    with start_blocking_portal() as shared, pytest.MonkeyPatch.context() as patch:

        @contextmanager
        def portal(client: TestClient) -> Iterator[BlockingPortal]:
            yield client.portal or shared

        patch.setattr(TestClient, "_portal_factory", portal)
        yield
