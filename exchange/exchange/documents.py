"""Documents: what is derived from a study, kept as the bytes that are served (FHIR R4 3.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.orm import Session

from exchange import happenings
from exchange.access import Access
from exchange.errors import Refused
from exchange.policy import Role
from exchange_storage.prepared import Prepared
from exchange_storage.records import ResourceVersion
from exchange_storage.rows import one_of_texts

_SAME = (
    ResourceVersion.resource_type == bindparam("of_type"),
    ResourceVersion.resource_id == bindparam("of_id"),
)
_HELD = Prepared(select(ResourceVersion.version).where(*_SAME, ResourceVersion.is_current))
_CURRENT = Prepared(
    lambda dialect: select(
        ResourceVersion.resource_id, ResourceVersion.version, ResourceVersion.content
    ).where(
        ResourceVersion.resource_type == bindparam("of_type"),
        one_of_texts(ResourceVersion.resource_id, "ids", dialect),
        ResourceVersion.is_current,
    )
)
_REMOVE = Prepared(delete(ResourceVersion).where(*_SAME))
_ADD = Prepared(
    insert(ResourceVersion),
    ["resource_type", "resource_id", "version", "is_current", "content", "recorded"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A version of a resource as it was derived."""

    resource_type: str
    resource_id: str
    version: int
    content: bytes
    patient: int | None = None
    """The record that it is about."""


def keep(access: Access, derived: Sequence[Document]) -> None:
    """Make each the current version of its resource, unless a later one is kept already.

    All in one commit. Only the exchange itself derives documents: raises Refused for anybody else.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself keeps derived documents")

    def unit(session: Session) -> None:
        for one in derived:
            _keep(session, one, access.now)

    if derived:
        access.write(unit)


def _keep(session: Session, one: Document, now: datetime) -> None:
    connection = session.connection()
    same = {"of_type": one.resource_type, "of_id": one.resource_id}
    held = _HELD.first(connection, same)
    if held is not None and held.version > one.version:
        return
    # Nothing derived is lost: it can be derived again, and its history is the instances'.
    _REMOVE.run(connection, same)
    _ADD.run(
        connection,
        {
            "resource_type": one.resource_type,
            "resource_id": one.resource_id,
            "version": one.version,
            "is_current": True,
            "content": one.content,
            "recorded": now,
        },
    )
    if held is None or held.version < one.version:
        happenings.changed(
            session,
            one.resource_type,
            one.resource_id,
            one.version,
            one.patient,
            now,
            created=held is None,
        )


def current(access: Access, resource_type: str, versions: Mapping[str, int]) -> dict[str, bytes]:
    """The kept bytes of those resources whose kept version is the one given, by resource id.

    What was derived from an earlier version is left out, so that nothing stale is served. It is
    for the caller to have been permitted what the documents tell of; who may see one series of a
    study has nothing that was derived of all of them.
    """
    if not versions or access.requester.narrowed(None):
        return {}
    given = {"of_type": resource_type, "ids": json.dumps(list(versions))}
    rows = _CURRENT.all(access.session.connection(), given)
    return {
        row.resource_id: row.content for row in rows if row.version == versions[row.resource_id]
    }
