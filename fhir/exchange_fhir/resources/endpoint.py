"""Endpoint (FHIR R4 8.11): where the images of a hospital are retrieved, by DICOMweb.

All lead to the one DICOMweb root of the exchange. Each hospital has its own nevertheless, so that
whose images it gives shows in managingOrganization, and one hospital's can lead elsewhere later.
"""

from __future__ import annotations

from exchange_fhir.datatypes import Json, coding, derived_meta, present, reference, text
from exchange_storage.records import Organization

PREFIX = "dicomweb-"
CONNECTION = coding("endpoint-connection-type", "dicom-wado-rs", "DICOM WADO-RS")
REQUIRES_ACCESS_TOKEN = (
    "http://fhir.org/argonaut/smart-imaging/StructureDefinition/requires-access-token"  # noqa: S105
)
"""SMART Imaging Access: the token that found the study retrieves its images too."""


def identity(organization: Organization) -> str:
    """The id of a hospital's Endpoint."""
    return PREFIX + organization.code


def to_fhir(organization: Organization, address: str) -> Json:
    """The Endpoint of a hospital's images at `address`, the DICOMweb root."""
    return present(
        resourceType="Endpoint",
        id=identity(organization),
        meta=derived_meta(organization.registered),
        extension=[{"url": REQUIRES_ACCESS_TOKEN, "valueBoolean": True}],
        status="active",
        connectionType=CONNECTION,
        name=_name(organization),
        managingOrganization=reference("Organization", organization.code),
        payloadType=[{"text": "DICOM"}],
        payloadMimeType=["application/dicom"],
        address=address,
    )


def _name(organization: Organization) -> str:
    return f"{text(organization.name)} DICOMweb"
