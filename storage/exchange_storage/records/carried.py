"""Objects that the index carries on their way into the object store."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from exchange_storage.records.record import Key, Record, Text


class Carried(Record):
    """A small object, committed with its row, until it has been put into the object store."""

    __tablename__ = "carried"

    id: Mapped[Key] = mapped_column(init=False)
    key: Mapped[Text] = mapped_column(unique=True)
    """Under which it will lie in the store."""
    content: Mapped[bytes] = mapped_column(LargeBinary)
    carried: Mapped[datetime]
