"""Routes: which studies are forwarded to whom, and how far each of them has come."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import UID, Identity, Key, Record, Text, Word


class Route(Record):
    """A rule of one hospital: what of its studies goes where. An empty condition matches all."""

    __tablename__ = "route"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    id: Mapped[Key] = mapped_column(init=False)
    organization_id: Mapped[Identity] = mapped_column(ForeignKey("organization.id"))
    """The hospital whose studies are forwarded, and on whose behalf."""
    name: Mapped[Word]
    modality: Mapped[Word]
    body_part: Mapped[Word]
    source: Mapped[Word]
    """AE title that the study must have come from."""
    hours: Mapped[Word]
    """``HH:MM-HH:MM``, local time, when forwarding may begin; may span midnight."""
    entity_id: Mapped[Identity | None] = mapped_column(ForeignKey("application_entity.id"))
    """The registered node to which it goes by C-STORE; or else:"""
    url: Mapped[Text]
    """The base of a DICOMweb service to which it goes by STOW-RS; "" where it goes by C-STORE."""
    created: Mapped[datetime]
    active: Mapped[bool] = mapped_column(default=True)


class Delivery(Record):
    """A study on its way: by a route, or as a prior for an order. Its work is a job."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("route_id", "study_instance_uid"),
        UniqueConstraint("order_id", "study_instance_uid"),
        Index(None, "delivered"),
        Index(None, "study_instance_uid"),
        # What a destination confirms late must not count for another delivery.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[Key] = mapped_column(init=False)
    study_instance_uid: Mapped[UID]
    asked: Mapped[datetime]
    route_id: Mapped[Identity | None] = mapped_column(ForeignKey("route.id"), default=None)
    order_id: Mapped[Identity | None] = mapped_column(ForeignKey("imaging_order.id"), default=None)
    entity_id: Mapped[Identity | None] = mapped_column(
        ForeignKey("application_entity.id"), default=None
    )
    """The destination of a prior."""
    delivered: Mapped[datetime | None] = mapped_column(default=None)
    instances: Mapped[int] = mapped_column(default=0)
    """Instances that the destination has confirmed."""


class Delivered(Record):
    """One instance that a destination has confirmed: it is not sent again."""

    __tablename__ = "delivered"

    delivery_id: Mapped[Identity] = mapped_column(ForeignKey("delivery.id"), primary_key=True)
    instance_id: Mapped[Identity] = mapped_column(primary_key=True)
