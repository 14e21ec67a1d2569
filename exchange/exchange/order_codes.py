"""The codes of an order: of its requested procedure, and of the protocols scheduled for it.

By them a modality chooses what to do (IHE Scheduled Workflow). They are kept as DICOM has them
(PS3.3 section 8): one item for each concept, beside it the other codes that mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, insert, select
from sqlalchemy.orm import Session

from exchange.access import Access
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import Order, OrderCode
from exchange_storage.rows import as_list, one_of
from exchange_storage.search import Matching

CONCEPTS = 16
"""Items of one sequence, at most."""

EQUIVALENTS = 8
"""Codes of one item, at most."""


LOCAL = "L"
"""Designator of a coding scheme that is a hospital's own (PS3.3 8.2)."""

_URI = re.compile(r"(urn:|https?://)[!-\[\]-~]+")


class Kind(StrEnum):
    """What of an order is coded."""

    PROCEDURE = "procedure"
    PROTOCOL = "protocol"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: at most 255 characters each, the meaning 64, the version 16 (SH)."""

    value: str
    scheme: str
    """Coding Scheme Designator; "" for a URI, which needs none."""
    meaning: str
    version: str = ""
    system: str = ""
    """The URI of a hospital's own coding scheme."""

    @property
    def is_uri(self) -> bool:
        """Whether the value is a URN or URL (PS3.3 8.1)."""
        return _URI.fullmatch(self.value) is not None


Codes = Mapping[Kind, Sequence[Sequence[Code]]]
"""By what they code: items, each the code itself and those that mean the same."""

MATCHED = {
    "value": OrderCode.value,
    "scheme": OrderCode.scheme,
    "version": OrderCode.version,
    "meaning": OrderCode.meaning,
}


def keep(session: Session, order: int, codes: Codes) -> None:
    """Keep these as all the codes of an order, in the transaction of `session`."""
    session.execute(delete(OrderCode).where(OrderCode.order_id == order))
    rows = [
        {
            "order_id": order,
            "kind": kind.value,
            "item": item,
            "equivalent": equivalent,
            "value": code.value,
            "scheme": code.scheme,
            "version": code.version,
            "meaning": code.meaning,
            "system": code.system,
        }
        for kind, items in codes.items()
        for item, concept in enumerate(items[:CONCEPTS])
        for equivalent, code in enumerate(concept[:EQUIVALENTS])
    ]
    if rows:
        session.execute(insert(OrderCode), rows)


def of_orders(access: Access, orders: Collection[int]) -> Mapping[int, Codes]:
    """The codes of orders, by the orders' row numbers: for whoever was permitted the orders."""
    if not orders:
        return {}
    rows = _OF_ORDERS.all(access.session.connection(), {"wanted": as_list(orders)})
    told: dict[int, dict[Kind, dict[int, list[Code]]]] = {}
    for one in rows:
        items = told.setdefault(one.order_id, {}).setdefault(Kind(one.kind), {})
        code = Code(one.value, one.scheme, one.meaning, one.version, one.system)
        items.setdefault(one.item, []).append(code)
    return {
        order: {kind: list(items.values()) for kind, items in kinds.items()}
        for order, kinds in told.items()
    }


def _of_orders(dialect: str) -> Select[Any]:
    return (
        select(*OrderCode.__table__.columns)
        .where(one_of(OrderCode.order_id, "wanted", dialect))
        .order_by(OrderCode.order_id, OrderCode.kind, OrderCode.item, OrderCode.equivalent)
    )


_OF_ORDERS = Prepared(_of_orders)


def coded(kind: Kind, keys: Sequence[tuple[str, Matching]]) -> ColumnElement[bool]:
    """Whether an order has an item whose own code matches all of `keys`, named as in `MATCHED`
    (sequence matching, PS3.4 C.2.2.2.6)."""
    return exists(
        select(OrderCode.order_id).where(
            OrderCode.order_id == Order.id,
            OrderCode.kind == kind.value,
            OrderCode.equivalent == 0,
            *(search.compare(MATCHED[name], matching) for name, matching in keys),
        )
    )
