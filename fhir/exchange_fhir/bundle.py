"""Searchset Bundles (FHIR R4 2.36, 3.1.1.3) from bytes that are not parsed again, and their pages.

A next link carries the whole question, encrypted: it tells nothing to a log of addresses, cannot
be altered, and is good for nobody but the one who asked. What it shows is decided anew each time.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson
from cryptography.fernet import Fernet, InvalidToken

from exchange.errors import Invalid, Refused
from exchange.policy import Requester
from exchange_fhir.outcome import outcome
from exchange_fhir.reading import Resource
from exchange_fhir.search import Scope

Pairs = Sequence[tuple[str, str]]


SHOWN = frozenset({"_format", "_pretty", "_summary", "_elements"})
"""Parameters that say how an answer is written, and what of it."""


def written_as(asked: Pairs) -> list[tuple[str, str]]:
    """Those of the parameters of a question that say in what format its answer is written."""
    return [one for one in asked if one[0] in {"_format", "_pretty"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of matches and what goes with them."""

    matches: Sequence[Resource]
    included: Sequence[Resource] = ()
    total: int | None = None
    more: bool = False
    warnings: Sequence[str] = field(default_factory=tuple)


class Pages:
    """Writes and reads what stands in next links, with a key that all processes share."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the key of next links has at least 16 bytes")
        self._cipher = Fernet(urlsafe_b64encode(hashlib.sha256(b"fhir page\n" + key).digest()))

    def seal(self, requester: Requester, kind: str, used: Pairs, offset: Any) -> str:
        """The `_page` of a link to the entries from `offset` on, which is JSON."""
        told = {"asker": _asker(requester), "kind": kind, "used": list(used), "offset": offset}
        return self._cipher.encrypt(orjson.dumps(told)).decode()

    def unseal(self, requester: Requester, kind: str, token: str) -> tuple[Pairs, Any]:
        """Parameters and offset of a `_page`. Raises Invalid, or Refused for somebody else's."""
        try:
            told = orjson.loads(self._cipher.decrypt(token.encode()))
        except InvalidToken:
            raise Invalid("_page is not from a link of this server; search again") from None
        if told["asker"] != _asker(requester):
            raise Refused("this page belongs to somebody else's search; search again")
        if told["kind"] != kind:
            raise Invalid(f"this page is one of a search for {told['kind']}")
        return [(name, value) for name, value in told["used"]], told["offset"]


def _asker(requester: Requester) -> list[str | int | None]:
    return [requester.name, requester.role, requester.organization, requester.purpose]


def searchset(
    scope: Scope, kind: str, page: Page, *, used: Pairs, ignored: Sequence[str], following: str
) -> bytes:
    """The Bundle of a page. `following` is the `_page` of the next one, "" when this is the last.

    The self link shows the parameters that were used; those that were not are named in an
    OperationOutcome among the entries. `total` counts matches only.
    """
    address = f"{scope.base}/{kind}" if kind else scope.base
    links = [{"relation": "self", "url": f"{address}?{urlencode(used)}"}]
    if following:
        links.append({"relation": "next", "url": f"{address}?{urlencode({'_page': following})}"})
    matched = {(one.kind, one.id) for one in page.matches}
    included = {
        (one.kind, one.id): one for one in page.included if (one.kind, one.id) not in matched
    }
    entries = [
        *(_entry(scope, one, "match") for one in page.matches),
        *(_entry(scope, one, "include") for one in included.values()),
    ]
    told = [f"not supported here, and ignored: {name}" for name in ignored]
    for code, warnings in (("not-supported", told), ("incomplete", page.warnings)):
        if warnings:
            resource = outcome("warning", code, warnings)
            entries.append({"resource": resource, "search": {"mode": "outcome"}})
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        **({} if page.total is None else {"total": page.total}),
        "link": links,
        **({"entry": entries} if entries else {}),
    }
    return orjson.dumps(bundle)


def _entry(scope: Scope, resource: Resource, mode: str) -> dict[str, object]:
    return {
        "fullUrl": f"{scope.base}/{resource.kind}/{resource.id}",
        "resource": orjson.Fragment(resource.content),
        "search": {"mode": mode},
    }
