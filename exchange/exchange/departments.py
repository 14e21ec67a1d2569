"""Whose a department, service, place or role is: the hospital to which its entry in the directory
leads (Organization.partOf and the like), else the one that keeps the entry.

One answer for all who ask whose an order is: its hospital's worklist, and those who are told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import and_, bindparam, or_, select
from sqlalchemy.orm import Session

from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, Resource, Revision, SearchReference

ABOVE: Mapping[str, tuple[str, ...]] = {
    "Device": ("organization", "location"),
    "HealthcareService": ("organization", "location"),
    "Location": ("organization", "partof"),
    "Organization": ("partof",),
    "PractitionerRole": ("organization", "service", "location"),
}
"""By type the search parameters of the references that lead to whom an entry belongs (Device.owner,
HealthcareService.providedBy, Location.managingOrganization): the first that does decides."""

LEVELS = 8
"""How far is gone from an entry to the entry above it."""

READ = 50
"""Entries that are read for one reference, at most."""

OID = "urn:oid:"
"""What the issuer of a hospital's numbers begins with, as a URI."""


@dataclass(slots=True)
class Directory:
    """The directory as a session shows it; what was found once is remembered."""

    session: Session
    _found: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    def whose(self, kind: str, logical_id: str) -> frozenset[int]:
        """The hospitals, by their row numbers, to which an entry leads; none where it leads
        nowhere."""
        entry = kind, logical_id
        if entry not in self._found:
            self._found[entry] = self._above(kind, logical_id, set(), LEVELS)
        return self._found[entry]

    def numbered(self, number: str) -> frozenset[int]:
        """The hospitals with this credit code, or whose numbers are issued under this OID."""
        given = {"number": number, "issuer": number.removeprefix(OID)}
        rows = _NUMBERED.all(self.session.connection(), given)
        return frozenset(
            row.id for row in rows if row.credit_code == number or number.startswith(OID)
        )

    def named(
        self, entries: Iterable[tuple[str, str]], numbers: Iterable[str] = ()
    ) -> frozenset[int]:
        """The hospitals to which some of these entries and numbers lead."""
        by_entry = (self.whose(kind, logical_id) for kind, logical_id in entries)
        by_number = (self.numbered(one) for one in numbers)
        return frozenset[int]().union(*by_entry, *by_number)

    def content(self, kind: str, logical_id: str) -> bytes:
        """What an entry says, in the form in which it is kept; nothing where there is none."""
        given = {"kind": kind, "logical_id": logical_id}
        row = _CONTENT.first(self.session.connection(), given)
        return b"" if row is None else bytes(row.content)

    def _above(
        self, kind: str, logical_id: str, seen: set[tuple[str, str]], levels: int
    ) -> frozenset[int]:
        connection = self.session.connection()
        if kind == "Organization":
            hospital = _HOSPITAL.first(connection, {"code": logical_id})
            if hospital is not None:
                return frozenset({hospital.id})
        if kind not in ABOVE or not levels or (kind, logical_id) in seen or len(seen) >= READ:
            return frozenset()
        seen.add((kind, logical_id))
        entry = {"kind": kind, "logical_id": logical_id}
        for code in ABOVE[kind]:
            given = {**entry, "parameter": f"{kind}.{code}"}
            leads = _LEADS.all(connection, given)
            found = (self._above(row.target_kind, row.target, seen, levels - 1) for row in leads)
            if hospitals := frozenset[int]().union(*found):
                return hospitals
        keeper = _KEEPER.first(connection, entry)
        return frozenset() if keeper is None else frozenset({keeper.organization_id})


_HOSPITAL = Prepared(select(Organization.id).where(Organization.code == bindparam("code")))
_NUMBERED = Prepared(
    select(Organization.id, Organization.credit_code).where(
        or_(
            Organization.credit_code == bindparam("number"),
            Organization.issuer == bindparam("issuer"),
        )
    )
)
_ENTRY = (
    Resource.kind == bindparam("kind"),
    Resource.logical_id == bindparam("logical_id"),
    ~Resource.deleted,
)
_LEADS = Prepared(
    select(SearchReference.target_kind, SearchReference.target)
    .join(Resource, Resource.id == SearchReference.resource_id)
    .where(*_ENTRY, SearchReference.parameter == bindparam("parameter"))
    .order_by(SearchReference.position)
)
_CONTENT = Prepared(
    select(Revision.content)
    .join(Resource, and_(Resource.id == Revision.resource_id, Resource.version == Revision.version))
    .where(*_ENTRY, Resource.is_directory)
)
_KEEPER = Prepared(
    select(Resource.organization_id).where(
        *_ENTRY, Resource.is_directory, Resource.organization_id.is_not(None)
    )
)
