"""Refreshing what is kept of a study: its ImagingStudy, derived, validated and kept as bytes.

The handler of jobs of the kind `jobs.REFRESH`; validation costs milliseconds for each hundred
instances, which is why it is done here once and not for each answer.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

import orjson
from fhir.resources.R4B.imagingstudy import ImagingStudy
from pydantic import ValidationError

from exchange import documents, orders, query
from exchange.access import Access
from exchange.errors import Invalid
from exchange_fhir.resources import imaging_study
from exchange_storage.search import Level, Rows


def refresh(access: Access, study: int, *, timezone: ZoneInfo) -> None:
    """Derive the ImagingStudy of the study with this row number again, and keep it.

    On behalf of the exchange itself. Safe to repeat; a study that is gone is left alone. Raises
    Invalid, without patient data, when what was derived is not FHIR, Refused and Unavailable.
    """
    answer = query.find(access, Level.STUDY, [Rows(Level.STUDY, (study,))], limit=1)
    for found in answer.found:
        held = imaging_study.held(found)
        contents = query.contents(access, [found])[held.id]
        led = orders.of_studies(access, [held.id]).get(held.id, ())
        content = orjson.dumps(imaging_study.to_fhir(found, contents, timezone, led))
        _validate(content)
        documents.keep(
            access,
            "ImagingStudy",
            held.study_instance_uid,
            held.revision,
            content,
            patient=found.patient.id,
        )


def _validate(content: bytes) -> None:
    try:
        ImagingStudy.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"the ImagingStudy is not valid at {place}: {first['type']}") from None
