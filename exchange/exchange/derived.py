"""What is derived from the instances of a series, kept in the object store as it is served.

A document is named by what it was made from: the digests of the instances in their order, and the
form in which it tells of them. So one that is out of date is not found, whatever has changed: an
instance more, one that was rejected, a conflict that was settled. One that was made while its
instances were taken out of use, or deleted, is not kept. It lies under
``derived/<Study>/<Series>/<form>.<digest>``; of a few forms the last is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import bindparam, select

from exchange.access import Exchange, translated
from exchange.errors import Unavailable
from exchange.keys import segment
from exchange.retrieval import Held
from exchange_storage.objects import ObjectNotFound, ObjectStore, ObjectStoreError
from exchange_storage.prepared import Prepared
from exchange_storage.records import Instance, Series

PREFIX = "derived"

FORMS = 4
"""Forms in which a series is kept at a time: more than one while releases, or the settings of two
machines, differ."""


def find(held: Sequence[Held], form: str) -> bytes | None:
    """The document of this form that was made of these instances of one series, if it is kept.

    It is for the caller to have been permitted the instances. Raises Unavailable.
    """
    objects = held[0].objects
    with translated():
        try:
            return objects.get(_key(held, form))
        except ObjectNotFound:
            return None


def keep(exchange: Exchange, held: Sequence[Held], form: str, content: bytes) -> bool:
    """Keep a document in place of earlier ones of its form; whether that was possible.

    It is made again when it is not: a store that is full, or does not answer, loses nothing. What
    its instances are is looked up once it is kept: who takes one of them out later has the document
    removed (`forget`), or finds that it is not found any more; who has done so before, here.
    """
    objects = held[0].objects
    key = _key(held, form)
    try:
        objects.put(key, content)
        if not _in_use(exchange, held):
            _delete(objects, key)
            return False
        others = [one for one in objects.list(_above(held)) if one.key != key]
        same = [one for one in others if one.key.startswith(_above(held) + _named(form))]
        rest = sorted((one for one in others if one not in same), key=lambda one: one.kept)
        for stored in same + rest[: max(0, len(rest) - FORMS + 1)]:
            _delete(objects, stored.key)
    except (ObjectStoreError, Unavailable):
        return False
    return True


def _in_use(exchange: Exchange, held: Sequence[Held]) -> bool:
    """Whether these instances of one series are all served now. Raises Unavailable."""
    with translated(), exchange.database.at_once() as connection:
        rows = _SERVED.all(connection, {"series": held[0].series_instance_uid})
    return {one.key for one in held} <= {row.key for row in rows}


_SERVED = Prepared(
    select(Instance.key)
    .join(Series, Series.id == Instance.series_id)
    .where(Series.series_instance_uid == bindparam("series"), Instance.is_primary)
)


def forget(objects: ObjectStore, study_instance_uid: str) -> None:
    """Remove all that is derived from a study of which something is deleted.

    Raises Unavailable.
    """
    with translated():
        for stored in list(objects.list(f"{PREFIX}/{segment(study_instance_uid)}/")):
            _delete(objects, stored.key)


def series_of(key: str) -> str:
    """The Series Instance UID of the series from which the document of this key was derived."""
    return [*key.split("/"), "", "", ""][2].removeprefix("_")


def _delete(objects: ObjectStore, key: str) -> None:
    with suppress(ObjectNotFound):  # somebody else was quicker
        objects.delete(key)


def _key(held: Sequence[Held], form: str) -> str:
    made_from = hashlib.sha256("".join(one.digest for one in held).encode())
    return _above(held) + _named(form) + made_from.hexdigest()


def _above(held: Sequence[Held]) -> str:
    study, series = held[0].study_instance_uid, held[0].series_instance_uid
    return f"{PREFIX}/{segment(study)}/{segment(series)}/"


def _named(form: str) -> str:
    return hashlib.sha256(form.encode()).hexdigest()[:16] + "."
