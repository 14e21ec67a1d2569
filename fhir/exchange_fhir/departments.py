"""Whose a department, service, place or role is: the hospital to which its entry in the directory
leads (Organization.partOf and the like), else the one that keeps the entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from exchange import clinical
from exchange.access import Access
from exchange_fhir import indexing, json_format
from exchange_fhir.datatypes import Json

ABOVE: Mapping[str, tuple[str, ...]] = {
    "Device": ("owner", "location"),
    "HealthcareService": ("providedBy", "location"),
    "Location": ("managingOrganization", "partOf"),
    "Organization": ("partOf",),
    "PractitionerRole": ("organization", "healthcareService", "location"),
}
"""By type the elements that lead to whom an entry belongs: the first that does decides."""

LEVELS = 8
"""How far is gone from an entry to the entry above it."""

READ = 50
"""Entries that are read for one reference, at most."""

Whose = Callable[[str], frozenset[int]]
"""The hospitals, by their row numbers, to which a reference leads."""


@dataclass(slots=True)
class Directory:
    """The directory as it is now, for the exchange itself; what was found once is remembered."""

    access: Access
    codes: Mapping[str, int]
    """The row numbers of the registered hospitals by their codes."""
    base: str
    _found: dict[str, frozenset[int]] = field(default_factory=dict)

    def whose(self, reference: str) -> frozenset[int]:
        """The hospitals to which a reference leads; none where it leads nowhere."""
        if reference not in self._found:
            kind, identity = indexing.target(reference, f"{self.base}/")
            self._found[reference] = self._above(kind, identity, set(), LEVELS)
        return self._found[reference]

    def _above(
        self, kind: str, identity: str, seen: set[tuple[str, str]], levels: int
    ) -> frozenset[int]:
        if kind == "Organization" and identity in self.codes:
            return frozenset({self.codes[identity]})
        if kind not in ABOVE or not levels or (kind, identity) in seen or len(seen) >= READ:
            return frozenset()
        seen.add((kind, identity))
        for kept in clinical.current(self.access, kind, [identity]):
            entry = json_format.parse(kept.content)
            for element in ABOVE[kind]:
                leads = (
                    self._above(*indexing.target(one, f"{self.base}/"), seen, levels - 1)
                    for one in _references(entry, element)
                )
                if found := frozenset[int]().union(*leads):
                    return found
        keeper = clinical.keeper(self.access, kind, identity)
        return frozenset() if keeper is None else frozenset({keeper})


def _references(entry: Json, element: str) -> Iterator[str]:
    told = entry.get(element, [])
    for one in told if isinstance(told, list) else [told]:
        if reference := one.get("reference"):
            yield reference
