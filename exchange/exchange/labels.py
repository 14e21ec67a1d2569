"""Which labels resources bear: what is in use among all that the asker may see (FHIR R4, $meta)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import aliased

from exchange import policy, visibility
from exchange.access import Access
from exchange.clinical import reading
from exchange.errors import TooBroad
from exchange.policy import Action, Permit
from exchange.visibility import Reach
from exchange_storage.prepared import Prepared
from exchange_storage.records import Resource, SearchToken, SearchUri
from exchange_storage.rows import one_of_texts

LOOKED_THROUGH = 100_000
"""Labels of resources, each time that one is borne, that are looked through for one question."""

MOST = 1000
"""Different labels that are told."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label: a code in its system, or the address of a profile, which has no system."""

    parameter: str
    """The search parameter that it was found under, without the resource type: ``_tag``."""
    value: str
    system: str = ""


def in_use(
    access: Access, kinds: Sequence[str], *, tokens: Sequence[str], uris: Sequence[str], asked: str
) -> list[Label]:
    """The labels under these search parameters that resources of the types bear, in order.

    What the asker may not see counts for nothing. `asked` is for the audit trail. Raises Refused,
    TooBroad.
    """
    actions = {kind: reading(access.requester, Action.SEARCH, kind) for kind in kinds}
    detail = {"what": asked, "interaction": "labels"}
    reaches: dict[Reach, list[str]] = {}
    for kind, action in actions.items():
        if isinstance(policy.may(access.requester, action), Permit):
            reaches.setdefault(visibility.reach(access.requester, action), []).append(kind)
    action = next(iter(actions.values())) if len(actions) == 1 else Action.SEARCH
    if not reaches:
        access.require(action, detail=detail)
    found: set[Label] = set()
    for reach, of_reach in reaches.items():
        for table, parameters in ((SearchToken, tokens), (SearchUri, uris)):
            for parameter in parameters:
                found |= _borne(access, reach, of_reach, table, parameter)
    if len(found) > MOST:
        raise TooBroad("too many labels are in use: ask of one type, or of one resource")
    access.note(action, detail=detail | {"answered": len(found)})
    return sorted(found, key=lambda one: (one.parameter, one.system, one.value))


def _borne(
    access: Access, reach: Reach, kinds: Sequence[str], table: Any, parameter: str
) -> set[Label]:
    connection = access.session.connection()
    names = json.dumps([f"{kind}.{parameter}" for kind in kinds])
    given = {"names": names, "limit": LOOKED_THROUGH + 1}
    if _BORNE[table].number(connection, given) > LOOKED_THROUGH:
        raise TooBroad("too many resources bear labels: ask of one type, or of one resource")
    given = visibility.parameters(access.requester, access.now) | given | {"limit": MOST + 1}
    rows = _different(table, reach).all(connection, given)
    return {Label(parameter, *row) for row in rows}


def _under(table: Any, dialect: str) -> Select[Any]:
    return select(table.resource_id).where(one_of_texts(table.parameter, "names", dialect))


def _counted(table: Any) -> Prepared:
    def built(dialect: str) -> Select[Any]:
        some = _under(table, dialect).limit(bindparam("limit"))
        return select(func.count()).select_from(some.subquery())

    return Prepared(built)


_BORNE = {table: _counted(table) for table in (SearchToken, SearchUri)}
"""How many labels there are, up to a limit, whoever may see them."""


@lru_cache(2 * len(Reach))
def _different(table: Any, reach: Reach) -> Prepared:
    columns = [table.code, table.system] if table is SearchToken else [table.value]

    def built(dialect: str) -> Select[Any]:
        one = aliased(Resource)
        return (
            _under(table, dialect)
            .with_only_columns(*columns)
            .distinct()
            .join(one, one.id == table.resource_id)
            .where(~one.deleted, visibility.clinical_within(reach, one))
            .limit(bindparam("limit"))
        )

    return Prepared(built)
