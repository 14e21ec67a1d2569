"""Organization (FHIR R4 8.6): a hospital of the exchange. The directory is open to every asker."""

from __future__ import annotations

from datetime import datetime

from exchange_fhir.datatypes import Json, concept, derived_meta, present, reference, text
from exchange_fhir.resources import endpoint
from exchange_storage.records import Organization

CREDIT_CODE = "urn:oid:2.16.156.10011.1.5"
"""The OID of an organization's code in health records (WS/T 500-2016)."""


def updated(organization: Organization) -> datetime:
    """When what is told of a hospital last changed."""
    return organization.changed or organization.registered


def to_fhir(organization: Organization) -> Json:
    """The Organization of a hospital; its id is our short name of it."""
    return present(
        resourceType="Organization",
        id=organization.code,
        meta=derived_meta(updated(organization)),
        identifier=[
            {
                "use": "official",
                "type": concept("v2-0203", "XX"),
                "system": CREDIT_CODE,
                "value": organization.credit_code,
            },
            {
                "use": "secondary",
                "type": {"text": "Issuer of its patient numbers"},
                "system": "urn:ietf:rfc:3986",
                "value": f"urn:oid:{organization.issuer}",
            },
        ],
        active=organization.active,
        type=[concept("organization-type", "prov")],
        name=text(organization.name),
        endpoint=[reference("Endpoint", endpoint.identity(organization))],
    )
