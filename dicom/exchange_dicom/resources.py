"""The resources of DICOMweb and their URLs (PS3.18 section 10.1, Table 10.1-1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from exchange.errors import Invalid

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Root:
    """Where the door stands: the base URI that PS3.18 calls SERVICE, without a slash behind."""

    url: str

    def resource(self, study: str, series: str | None = None, instance: str | None = None) -> str:
        """The URL of a study, of a series in it, or of an instance in that."""
        above = f"{self.url}/studies/{study}"
        if series is not None:
            above += f"/series/{series}"
        return above if instance is None else f"{above}/instances/{instance}"

    def warning(self, text: str) -> tuple[str, str]:
        """A header field that tells the asker something (PS3.18 8.3.4.4, RFC 7234 5.5)."""
        return "Warning", f"299 {self.url}: {text.encode('ascii', 'replace').decode()}"


def uid(text: str) -> str:
    """`text` where it can be a UID, so that it is no list and no wildcard. Raises Invalid."""
    if not _UID.fullmatch(text):
        raise Invalid("a UID in the path has at most 64 digits and dots")
    return text
