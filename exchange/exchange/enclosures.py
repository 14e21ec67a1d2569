"""Whom a document is about that says nothing of it: whoever those are about that attach it.

A Binary is its security context's (FHIR R4 2.22.2). One without it is seen with what attaches it,
such as a DocumentReference; only what its own hospital wrote counts, else whoever guesses its id
could show it to themselves. Attached for several patients, it is about all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import bindparam, select, union
from sqlalchemy.orm import Session

from exchange import clinical, targets
from exchange_storage import resource_rows
from exchange_storage.prepared import Prepared
from exchange_storage.records import Compartment, Resource, SearchReference
from exchange_storage.resource_index import Reference, Value

KIND = "Binary"

ATTACHED = "Binary:attached"
"""Under this a resource is found by what it attaches."""

CONTEXT = "Binary:context"
"""Under this a Binary is found by its security context."""


def is_confined(values: Iterable[Value]) -> bool:
    """Whether a Binary that is found under these values has a security context."""
    return any(one.parameter == CONTEXT for one in values)


def attached(values: Iterable[Value]) -> frozenset[str]:
    """The logical ids of the Binaries that a resource attaches, which is found under these."""
    return frozenset(
        one.target for one in values if isinstance(one, Reference) and one.parameter == ATTACHED
    )


def attached_by(session: Session, resource: int) -> frozenset[str]:
    """The same, by the row of the resource."""
    rows = _UNDER.all(session.connection(), {"resource": resource, "parameter": ATTACHED})
    return frozenset(row.target for row in rows)


def patients(session: Session, organization: int | None, logical_id: str) -> list[int]:
    """The patient records that those resources of the hospital are about that attach a Binary."""
    given = {"organization": organization, "target": logical_id}
    return sorted(row.patient_id for row in _ABOUT.all(session.connection(), given))


def settle(session: Session, organization: int | None, named: Iterable[str]) -> None:
    """See to it that the hospital's Binaries are about whom they are attached for by now."""
    connection = session.connection()
    for logical_id in sorted(named):
        held = resource_rows.HELD.first(connection, {"kind": KIND, "logical_id": logical_id})
        if held is None or held.deleted or held.organization_id != organization:
            continue
        if _UNDER.all(connection, {"resource": held.id, "parameter": CONTEXT}):
            continue
        before = clinical.about(session, held.id, held.patient_id, others=held.has_others)
        about = patients(session, organization, logical_id)
        if set(before) != set(about):
            targets.place(session, held.id, held.version, about)
            targets.follow(session, KIND, logical_id)


_UNDER = Prepared(
    select(SearchReference.target).where(
        SearchReference.resource_id == bindparam("resource"),
        SearchReference.parameter == bindparam("parameter"),
    )
)
_ATTACHING = (
    SearchReference.parameter == ATTACHED,
    SearchReference.target_kind == KIND,
    SearchReference.target == bindparam("target"),
    Resource.organization_id == bindparam("organization", type_=Resource.organization_id.type),
    ~Resource.deleted,
)
_ABOUT = Prepared(
    union(
        select(Resource.patient_id)
        .join(SearchReference, SearchReference.resource_id == Resource.id)
        .where(*_ATTACHING, Resource.patient_id.is_not(None)),
        select(Compartment.patient_id)
        .join(Resource, Resource.id == Compartment.resource_id)
        .join(SearchReference, SearchReference.resource_id == Resource.id)
        .where(*_ATTACHING),
    )
)
