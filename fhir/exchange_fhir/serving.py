"""What every interaction needs of the server that it is asked of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urljoin
from zoneinfo import ZoneInfo

from fastapi import Request
from starlette.applications import Starlette

from exchange.access import Access, Exchange
from exchange.policy import Requester
from exchange.recording import Finder
from exchange_fhir import conditions, integrity, reads
from exchange_fhir.answers import Answered
from exchange_fhir.binary import Send, sent
from exchange_fhir.bundle import Pages
from exchange_fhir.interactions import Here, Pairs
from exchange_fhir.search import Scope
from exchange_fhir.writing import Place

METADATA = "fhir metadata"
"""The name of the route from which the server's own address is known."""

Identify = Callable[[Request], Requester]
"""Who sends a request. Raises NotAuthenticated."""


@lru_cache(8)
def door_path(app: Starlette) -> str:
    """Where the server is below the application's address: looked for among all routes once."""
    return str(app.url_path_for(METADATA)).removesuffix("metadata").rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How the server handles what the standard leaves to it."""

    body_limit: int = 16 << 20
    """Bytes of a request's body, a Bundle among them."""
    binary_limit: int = 256 << 20
    """Bytes of the content of a Binary that is sent as itself."""
    entries: int = 1000
    """Entries of a batch or transaction."""
    update_creates: bool = True
    """Whether a PUT to an id that is not known creates the resource."""
    dangling: bool = True
    """Whether references to resources that are not here are taken."""
    plain_http: bool = False
    """Whether subscribers may be notified without encryption."""
    cross_origin: bool = False
    """Whether web applications of other origins are let ask (CORS); said, not done here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """One FHIR server."""

    exchange: Exchange
    identify: Identify
    pages: Pages
    base_url: str | None
    dicomweb: str
    timezone: ZoneInfo
    conduct: Conduct
    sent: Send = sent

    def base(self, request: Request) -> str:
        """The address of the server as the client writes it, without a slash at its end."""
        if self.base_url:
            return self.base_url.rstrip("/")
        return f"{str(request.base_url).rstrip('/')}{door_path(request.app)}"

    def place(self, request: Request) -> Place:
        """Where resources are written."""
        return self.place_at(self.base(request))

    def place_at(self, base: str) -> Place:
        """The same, for who knows the server's address already."""
        return Place(
            base=base,
            timezone=self.timezone,
            update_creates=self.conduct.update_creates,
            plain_http=self.conduct.plain_http,
        )

    def scope(self, base: str, access: Access) -> Scope:
        """Where a question is asked."""
        return Scope(
            access=access,
            base=base,
            dicomweb=urljoin(base, self.dicomweb),
            timezone=self.timezone,
        )

    def here(self, place: Place, access: Access) -> Here:
        """Where and for whom interactions are done."""

        def find(kind: str, pairs: Pairs) -> Finder:
            return conditions.finder(self.scope(place.base, access), kind, pairs, own=True)

        def find_any(kind: str, pairs: Pairs) -> Finder:
            return conditions.finder(self.scope(place.base, access), kind, pairs, own=False)

        def unknown(names: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
            return integrity.unknown(lambda: self.scope(place.base, access), names)

        def native(kind: str) -> Callable[[str], Answered]:
            return lambda logical_id: reads.READS[kind](self.scope(place.base, access), logical_id)

        return Here(
            access=access,
            place=place if self.conduct.dangling else replace(place, unknown=unknown),
            find=find,
            find_any=find_any,
            scope=lambda: self.scope(place.base, access),
            native={kind: native(kind) for kind in reads.READS},
        )

    @contextmanager
    def asked(self, request: Request, requester: Requester) -> Iterator[Here]:
        """Everything done inside is done for the one who sends the request."""
        place = self.place(request)
        with self.exchange.on_behalf_of(requester) as access:
            yield self.here(place, access)
