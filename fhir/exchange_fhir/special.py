"""Search parameters of the type special (FHIR R4 3.1.1.4.16): each is read in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from exchange_fhir import near
from exchange_fhir.datatypes import Json
from exchange_fhir.search import Scope
from exchange_storage.resource_criteria import Asked
from exchange_storage.resource_index import Value


@dataclass(frozen=True, slots=True)
class Special:
    """One such parameter."""

    values: Callable[[Json], Iterator[Value]]
    """What the index keeps of a resource."""
    asked: Callable[[Scope, str], Asked]
    """What one value asks. Raises Invalid, TooBroad."""
    documentation: str


SPECIAL: Mapping[str, Special] = {
    near.NAME: Special(near.values, near.asked, near.DOCUMENTATION),
}
"""By their names; all others are refused."""


def values(resource: Json) -> Iterator[Value]:
    """What the index keeps of a resource for all of them."""
    for name, one in SPECIAL.items():
        if name.partition(".")[0] == resource["resourceType"]:
            yield from one.values(resource)
