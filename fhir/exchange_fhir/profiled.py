"""What a profile requires beyond R4 of a resource that states it: IHE MHD's submission sets.

Other profiles are kept as they are stated. A submission set without its source could not be told
from another's of the same number, and is of no use to whoever asks by ITI-66.
"""

from __future__ import annotations

from collections.abc import Iterator

from exchange_fhir.datatypes import Json

MHD = "https://profiles.ihe.net/ITI/MHD/StructureDefinition"
COMPREHENSIVE = f"{MHD}/IHE.MHD.Comprehensive.SubmissionSet"
REQUIRED = {
    f"{MHD}/ihe-sourceId": "valueIdentifier",
    f"{MHD}/ihe-designationType": "valueCodeableConcept",
}
"""The extensions of a comprehensive submission set (ITI-65), and what their value is."""


KNOWN = {COMPREHENSIVE: "List"}
"""The profiles that are looked at, and of which type they are."""


def missing(resource: Json, profile: str = "") -> Iterator[str]:
    """What a valid resource lacks of what it states to be, or of `profile`."""
    stated = [profile] if profile else resource.get("meta", {}).get("profile", ())
    profiles = {one.partition("|")[0] for one in stated}
    if resource["resourceType"] != "List" or COMPREHENSIVE not in profiles:
        return
    for url, value in REQUIRED.items():
        if not any(
            one.get("url") == url and one.get(value) for one in resource.get("extension", ())
        ):
            yield f"a submission set has {url.rpartition('ihe-')[2]}: the extension {url}"
