"""Indexing everything anew, and checking that it need not be, as an administrator has it done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fhir_door import BASE, SHANGHAI, Door
from region import ADMINISTRATOR, WORKER

from exchange import check, reindex
from exchange.check import Finding
from exchange.reindex import Progress, Said
from exchange_fhir import writing

PLACE = writing.Place(base=BASE, timezone=SHANGHAI)
FOREVER = timedelta(days=1)


def read(content: bytes) -> Said:
    return writing.said(content, PLACE)


def walk(door: Door, reader: Callable[[bytes], Said] = read) -> Progress:
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        number = reindex.ask(access)
    with door.city.exchange.on_behalf_of(WORKER) as access:
        assert reindex.walk(access, reader, until=datetime.now(UTC) + FOREVER)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return reindex.progress(access, number)


def named(door: Door, *, every: bool = True) -> list[str]:
    """What the check names."""
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = check.check(access, resources=read, every=every)
        return [one.key for one in found if isinstance(one, Finding) and not one.harmless]
