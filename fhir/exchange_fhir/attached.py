"""Whether content is what an Attachment says of it (FHIR R4 2.24.0.10): its SHA-1, if it has one.

Only of what comes along in the same transaction: what lies elsewhere is not fetched, and what is
inside is kept as it came, since the standard's own examples have digests that are no SHA-1 of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Issue


def wrong(resource: Json, contents: Mapping[str, str], path: str) -> list[Issue]:
    """What is wrong with the hashes in a valid resource that stands at `path`; `contents` are
    base64, by address."""
    told = "the hash is not the SHA-1 of what is attached, in base64"
    return [Issue("value", told, at) for at in _broken(resource, contents, path)]


def _broken(value: Any, contents: Mapping[str, str], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from _broken(one, contents, f"{path}[{at}]")
    elif isinstance(value, dict):
        # Of the types of R4 only Attachment has an element of this name.
        if isinstance(said := value.get("hash"), str):
            content = contents.get(str(value.get("url")))
            if content is not None and not _is_of(said, content):
                yield f"{path}.hash"
        for name, one in value.items():
            if isinstance(one, list | dict):
                yield from _broken(one, contents, f"{path}.{name}")


def _is_of(said: str, content: str) -> bool:
    try:
        digest = hashlib.sha1(base64.b64decode(content), usedforsecurity=False).digest()
        return base64.b64decode(said) == digest
    except binascii.Error:
        return False
