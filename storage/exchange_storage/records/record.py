"""What all records share: the declarative root, and the column types that both databases keep."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass, mapped_column
from sqlalchemy.types import TypeDecorator


class Moment(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC in the database (SQLite has no zones of its own)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Refuse what has no zone; SQLite would keep it and mean another hour."""
        return None if value is None else _in_utc(value)

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Give UTC back, whatever zone the connection speaks."""
        return None if value is None else value.astimezone(UTC)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """For SQLite the text itself: SQLAlchemy takes several times as long to write the same."""
        return _written if dialect.name == "sqlite" else super().bind_processor(dialect)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """What reads that."""
        return _read if dialect.name == "sqlite" else super().result_processor(dialect, coltype)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a datetime without a zone does not name a moment")
    return value.astimezone(UTC)


def _written(value: datetime | None) -> str | None:
    """As SQLAlchemy's DATETIME for SQLite writes a datetime without a zone."""
    return None if value is None else _in_utc(value).isoformat(" ", "microseconds")[:26]


def _read(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text + "+00:00")


def _word(length: int) -> String:
    """Text compared byte by byte in both databases, so that prefixes and ranges use an index."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


Identity = Annotated[int, mapped_column(BigInteger().with_variant(Integer(), "sqlite"))]
"""A 64-bit number; in SQLite the spelling that makes a primary key the row id."""

Key = Annotated[
    int, mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
]
UID = Annotated[str, mapped_column(_word(64))]
"""A DICOM unique identifier (PS3.5 section 9): at most 64 characters."""
Word = Annotated[str, mapped_column(_word(255))]
"""Matched text; "" where the sender gave none, so that ``*`` matches it as DICOM asks."""
Text = Annotated[str, mapped_column(_word(4096))]
Digest = Annotated[str, mapped_column(_word(64))]
"""SHA-256 as 64 lower-case hex digits."""
Document = Annotated[dict[str, Any], mapped_column(JSON)]


class Record(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """The root of all records. Constructors take keywords only."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {datetime: Moment()}  # noqa: RUF012 - SQLAlchemy reads it off the class
