"""CapabilityStatement (FHIR R4 5.1): what this server does, printed from the tables it works by."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from exchange_fhir.datatypes import Json, concept, present
from exchange_fhir.outcome import MEDIA_TYPE
from exchange_fhir.resources import endpoint, imaging_study, organization, patient
from exchange_fhir.search import MAX_VALUES, Table

FHIR_VERSION = "4.0.1"
DATE = "2026-11-23"
"""When what is stated last changed."""

TABLES: Mapping[str, Table[Any]] = {
    "Endpoint": endpoint.SEARCH,
    "ImagingStudy": imaging_study.SEARCH,
    "Organization": organization.SEARCH,
    "Patient": patient.SEARCH,
}
"""Every resource type that is served, and what can be asked of it."""

_SECURITY = (
    "OAuth 2.0 bearer tokens. What a token's holder may see is decided for each record: agreement "
    "of both hospitals, purpose of use, the patient's consent; every access is recorded."
)
_SEARCHING = (
    "Search by GET or by POST to _search. _count (default 50, at most 500; 0 for the total only), "
    "_sort, _summary=count, _include, _revinclude. The matches are counted with _total=accurate or "
    "_summary=count; else total is told only where the last match is on the page. A page of large "
    f"resources may hold fewer than _count; a search takes at most {MAX_VALUES} values. "
    "Parameters that are not supported are named in an OperationOutcome among the entries, or "
    "refused with Prefer: handling=strict."
)


def statement(base: str, token_endpoint: str = "") -> Json:
    """The CapabilityStatement of the server at the address `base`.

    `token_endpoint` is the address where access tokens are issued, if it is known.
    """
    issued = f" Tokens are issued at {token_endpoint} (.well-known/smart-configuration)."
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": DATE,
        "kind": "instance",
        "software": {"name": "imaging-exchange", "version": version("imaging-exchange")},
        "implementation": {"description": "Regional imaging exchange", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": [MEDIA_TYPE, "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": _SEARCHING,
                "security": {
                    "service": [concept("restful-security-service", "OAuth")],
                    "description": _SECURITY + (issued if token_endpoint else ""),
                },
                "resource": [_resource(kind, table) for kind, table in TABLES.items()],
            }
        ],
    }


def _resource(kind: str, table: Table[Any]) -> Json:
    return present(
        type=kind,
        documentation=table.documentation,
        interaction=[{"code": "read"}, {"code": "search-type"}],
        versioning="no-version",
        referencePolicy=["literal", "local"],
        searchInclude=list(table.includes),
        searchRevInclude=list(table.revincludes),
        searchParam=[
            {"name": name, "type": parameter.type, "documentation": parameter.documentation}
            for name, parameter in table.parameters.items()
            if "." not in name  # a chain is told of where its first part is
        ],
    )
