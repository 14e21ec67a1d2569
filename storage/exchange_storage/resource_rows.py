"""The rows of clinical resources and their versions, in statements put into words once."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import bindparam, insert, select

from exchange_storage.prepared import Prepared
from exchange_storage.records import Compartment, Resource, Revision

ADD = Prepared(
    insert(Resource).returning(Resource.id),
    [
        *("kind", "logical_id", "version", "organization_id", "patient_id", "changed"),
        *("is_directory", "has_others", "deleted", "whose"),
    ],
)
"""A new resource."""
HELD = Prepared(
    select(
        Resource.id,
        Resource.kind,
        Resource.logical_id,
        Resource.version,
        Resource.organization_id,
        Resource.patient_id,
        Resource.is_directory,
        Resource.has_others,
        Resource.changed,
        Resource.deleted,
        Resource.whose,
    ).where(Resource.kind == bindparam("kind"), Resource.logical_id == bindparam("logical_id"))
)
"""Where the resource of a kind and logical id stands."""


def _set(*columns: str) -> Prepared:
    values = {name: bindparam(name, type_=getattr(Resource, name).type) for name in columns}
    return Prepared(
        sqlalchemy.update(Resource).where(Resource.id == bindparam("row")).values(values)
    )


SET = _set("version", "patient_id", "is_directory", "has_others", "changed", "deleted")
"""Where a resource stands after a new version."""
PLACE = _set("patient_id", "has_others")
"""Whom a resource is about, without a new version."""
TAKE_OUT = _set("version", "changed", "deleted")
"""That a resource is deleted."""
REVISION = Prepared(
    select(Revision.id, Revision.recorded, Revision.content, Revision.interaction).where(
        Revision.resource_id == bindparam("resource"), Revision.version == bindparam("version")
    )
)
"""A version of a resource."""
ADD_REVISION = Prepared(
    insert(Revision).returning(Revision.id),
    ["resource_id", "kind", "version", "interaction", "content", "recorded", "elsewhere"],
)
"""A new version."""
ELSEWHERE = Prepared(
    sqlalchemy.update(Revision)
    .where(Revision.resource_id == bindparam("resource"))
    .values(elsewhere=True)
)
"""That the versions until now were about others."""
EARLIER_ELSEWHERE = Prepared(
    sqlalchemy.update(Revision)
    .where(Revision.resource_id == bindparam("resource"), Revision.version < bindparam("version"))
    .values(elsewhere=True)
)
"""That the versions before one were about others."""
ADD_OTHER = Prepared(insert(Compartment), ["resource_id", "patient_id"])
"""A further patient whom a resource is about."""
REMOVE_OTHERS = Prepared(
    sqlalchemy.delete(Compartment).where(Compartment.resource_id == bindparam("resource"))
)
"""That it is about none of them any more."""
REMOVE_EARLIER = Prepared(
    sqlalchemy.delete(Revision).where(
        Revision.resource_id == bindparam("resource"), Revision.version < bindparam("version")
    )
)
"""That the versions before one are forgotten."""
