"""Refreshing what is kept of studies: the ImagingStudy, derived, validated and kept as bytes.

The handler of jobs of the kind `jobs.REFRESH`; validation costs milliseconds for each hundred
instances, which is why it is done here once and not for each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import orjson
from fhir.resources.R4B.imagingstudy import ImagingStudy
from pydantic import ValidationError

from exchange import documents, orders, query
from exchange.access import Access
from exchange.documents import Document
from exchange.errors import Invalid
from exchange_fhir.resources import imaging_study
from exchange_storage.search import Level, Rows


def refresh(access: Access, studies: Sequence[int], *, timezone: ZoneInfo) -> None:
    """Derive the ImagingStudy of each study with these row numbers again, and keep them.

    On behalf of the exchange itself. Safe to repeat; a study that is gone is left alone. Raises
    Invalid, without patient data, when what was derived is not FHIR, Refused and Unavailable; then
    none of them is kept.
    """
    wanted = [Rows(Level.STUDY, tuple(studies))]
    found = query.find(access, Level.STUDY, wanted, limit=len(studies)).found
    held = [imaging_study.held(one) for one in found]
    contents = query.contents(access, found)
    led = orders.of_studies(access, [study.id for study in held])
    derived = []
    for one, study in zip(found, held, strict=True):
        told = imaging_study.to_fhir(one, contents[study.id], timezone, led.get(study.id, ()))
        content = orjson.dumps(told)
        _validate(content)
        derived.append(
            Document(
                resource_type="ImagingStudy",
                resource_id=study.study_instance_uid,
                version=study.revision,
                content=content,
                patient=one.patient.id,
            )
        )
    documents.keep(access, derived)


def _validate(content: bytes) -> None:
    try:
        ImagingStudy.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"the ImagingStudy is not valid at {place}: {first['type']}") from None
