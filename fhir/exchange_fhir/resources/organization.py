"""Organization (FHIR R4 8.6): a hospital of the exchange. The directory is open to every asker."""

from __future__ import annotations

from exchange_fhir.datatypes import Json, concept, instant, present, reference, text
from exchange_fhir.resources import endpoint
from exchange_fhir.search import Condition, Scope, Table, Token, fits, string, token
from exchange_storage.records import Organization

CREDIT_CODE = "urn:oid:2.16.156.10011.1.5"
"""The OID of an organization's code in health records (WS/T 500-2016)."""


def to_fhir(organization: Organization) -> Json:
    """The Organization of a hospital; its id is our short name of it."""
    return present(
        resourceType="Organization",
        id=organization.code,
        meta={"lastUpdated": instant(organization.registered)},
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
        active=True,
        type=[concept("organization-type", "prov")],
        name=text(organization.name),
        endpoint=[reference("Endpoint", endpoint.identity(organization))],
    )


def _identifier(_: Scope, asked: Token) -> Condition:
    def holds(one: Organization) -> bool:
        identifiers = {
            CREDIT_CODE: one.credit_code,
            "urn:ietf:rfc:3986": f"urn:oid:{one.issuer}",
        }
        if asked.system is None:
            return asked.code in identifiers.values()
        return identifiers.get(asked.system) == asked.code

    return holds


SEARCH: Table[Condition] = Table(
    documentation="The hospitals of the exchange; every asker may read them.",
    parameters={
        "_id": token(lambda _, asked: lambda one: one.code == asked.code, "Logical id"),
        "identifier": token(_identifier, f"Unified social credit code (system {CREDIT_CODE})"),
        "name": string(lambda _, asked: lambda one: fits(asked, text(one.name)), "Name"),
        "active": token(lambda _, asked: lambda _: asked.code == "true", "Always true"),
    },
    includes=("Organization:endpoint",),
)
