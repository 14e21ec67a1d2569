"""History of studies, of each of which only the current version is there (FHIR R4 3.1.0.11).

An ImagingStudy is derived from the exchange's records: what it was before is not kept.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from exchange.clinical import Kept
from exchange_fhir import searching
from exchange_fhir.interactions import Past, Versions
from exchange_fhir.ones import One
from exchange_fhir.question import Question
from exchange_fhir.resources import imaging_study
from exchange_fhir.search import Scope
from exchange_storage.search import Changed, Level

KIND = "ImagingStudy"


def studies(scope: Scope, past: Past, after: Any) -> Versions:
    """The studies that the asker may see, those that changed last first. Raises Refused, Invalid.

    Each of them is decided and recorded as by a search.
    """
    before = None if past.at is None else past.at[1]
    wanted = Question(
        kind=KIND,
        criteria=(Changed(Level.STUDY, since=past.since, before=before),),
        count=past.count,
        total=past.count == 0,
        sort=(),
        order="-changed",
        include=(),
        revinclude=(),
        used=(("_history", urlencode(past.used)),),
        ignored=(),
    )
    found = searching.matches(scope, wanted, after)
    kept = [_kept(one) for one in found.ones]
    return Versions(kept, found.total if past.count == 0 else None, found.after)


def _kept(one: One) -> Kept:
    if one.found is None:
        raise ValueError("a study was found without its record")
    study = imaging_study.held(one.found)
    return Kept(
        kind=KIND,
        logical_id=one.resource.id,
        version=study.revision,
        changed=study.changed,
        content=one.resource.content,
        interaction="create" if study.revision == 1 else "update",
        key=study.id,
    )
