"""Documents: what is derived from a study, kept as the bytes that are served (FHIR R4 3.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping

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


def keep(
    access: Access,
    resource_type: str,
    resource_id: str,
    version: int,
    content: bytes,
    *,
    patient: int | None = None,
) -> None:
    """Make `content` the current version of the resource, unless a later one is kept already.

    `patient` is the record that it is about. Only the exchange itself derives documents: raises
    Refused for anybody else.
    """
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself keeps derived documents")

    def unit(session: Session) -> None:
        connection = session.connection()
        same = {"of_type": resource_type, "of_id": resource_id}
        held = _HELD.first(connection, same)
        if held is not None and held.version > version:
            return
        # Nothing derived is lost: it can be derived again, and its history is the instances'.
        _REMOVE.run(connection, same)
        _ADD.run(
            connection,
            {
                "resource_type": resource_type,
                "resource_id": resource_id,
                "version": version,
                "is_current": True,
                "content": content,
                "recorded": access.now,
            },
        )
        if held is None or held.version < version:
            happenings.changed(
                session,
                resource_type,
                resource_id,
                version,
                patient,
                access.now,
                created=held is None,
            )

    access.write(unit)


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
