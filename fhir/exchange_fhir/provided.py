"""Documents that are provided once more (IHE MHD ITI-65, by the rules of XDS.b: ITI TF-2 3.42).

A document is known by its uniqueId, DocumentReference.masterIdentifier (R4 10.3): one that its
hospital has provided before is not kept twice, and another under its uniqueId is refused
(XDSNonIdenticalHash), as is another submission set under the uniqueId of one that is there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exchange.recording import Writing
from exchange_fhir import elements, json_format
from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Issue, Problem

if TYPE_CHECKING:
    from exchange_fhir.transaction import Entry

LIST_TYPES = "https://profiles.ihe.net/ITI/MHD/CodeSystem/MHDlistTypes"

Condition = Sequence[tuple[str, str]]


def conditions(entries: Sequence[Entry]) -> Mapping[int, Condition]:
    """What finds the documents, and the submission set, of a Provide Document Bundle where they are
    there already, by number of the entry; nothing for any other transaction."""
    made = [one for one in entries if one.method == "POST" and isinstance(one.resource, dict)]
    if not any(_is_submission_set(one.resource or {}) for one in made):
        return {}
    found = {one.number: _unique_id(one.resource or {}) for one in made}
    return {
        number: [("identifier", f"{_escaped(told.get('system') or '')}|{_escaped(told['value'])}")]
        for number, told in found.items()
        if isinstance(told.get("value"), str) and isinstance(told.get("system") or "", str)
    }


def again(
    entries: Sequence[Entry], found: Mapping[int, str], writing: Writing, base: str
) -> dict[int, str]:
    """The Binaries that are there already, by numbers of their entries: those of the documents that
    are, by `found`. Raises Problem where what is there is another one."""
    sent = {one.full_url: one for one in entries if one.full_url and one.method == "POST"}
    there: dict[int, str] = {}
    for one in entries:
        if one.number not in found or not isinstance(one.resource, dict):
            continue
        kind = one.asked.kind
        kept = json_format.parse(writing.present(kind, found[one.number]).content)
        if kind == "List":
            items = [
                f"DocumentReference/{found.get(sent[url].number)}" if url in sent else url
                for url in _items(one.resource)
            ]
            same = sorted(items) == sorted(
                "/".join(elements.target(url, f"{base}/")) for url in _items(kept)
            )
        else:
            pairs = list(zip(_attached(one.resource), _attached(kept), strict=False))
            same = len(_attached(one.resource)) == len(_attached(kept)) and all(
                _is_same(new, old, sent, writing, base) for new, old in pairs
            )
            for new, old in pairs:
                binary = sent.get(str(new.get("url")))
                target, named = elements.target(str(old.get("url", "")), f"{base}/")
                if binary is not None and target == "Binary":
                    there[binary.number] = named
        if not same:
            told = f"another {kind} is there under this uniqueId"
            issue = Issue("duplicate", told, f"{one.place}.resource")
            raise Problem(409, "duplicate", told, issues=[issue])
    return there


def _is_submission_set(resource: Json) -> bool:
    if resource.get("resourceType") != "List":  # in others `code` is anything
        return False
    codings = _object(resource.get("code")).get("coding")
    return any(
        (one.get("system"), one.get("code")) == (LIST_TYPES, "submissionset")
        for one in map(_object, codings if isinstance(codings, list) else ())
    )


def _object(told: object) -> Json:
    """What nobody has looked at yet, where it is an object; else an empty one."""
    return told if isinstance(told, dict) else {}


def _unique_id(resource: Json) -> Json:
    """The uniqueId of a document or a submission set, as an Identifier."""
    if resource.get("resourceType") == "DocumentReference":
        return _object(resource.get("masterIdentifier"))
    if _is_submission_set(resource):
        told = resource.get("identifier")
        each = map(_object, told if isinstance(told, list) else ())
        return next((one for one in each if one.get("use") == "usual"), {})
    return {}


def _escaped(text: str) -> str:
    return re.sub(r"([\\,|$])", r"\\\1", text)


def _items(submission_set: Json) -> list[str]:
    return [one["item"].get("reference", "") for one in submission_set.get("entry", ())]


def _attached(document: Json) -> list[Json]:
    return [one["attachment"] for one in document.get("content", ())]


def _is_same(new: Json, old: Json, sent: Mapping[str, Entry], writing: Writing, base: str) -> bool:
    """Whether two attachments are of one content: by its SHA-1 (R4 2.24.0.10)."""
    binary = sent.get(str(new.get("url")))
    data = (binary.resource or {}).get("data") if binary is not None else None
    digests = {_digest(new, data), _digest(old, None) or _digest({}, _lying(old, writing, base))}
    return (digests == {None} and new == old) or (len(digests) == 1 and None not in digests)


def _lying(attachment: Json, writing: Writing, base: str) -> Any:
    """The content, in base64, of the Binary that is attached."""
    kind, named = elements.target(str(attachment.get("url", "")), f"{base}/")
    if kind != "Binary" or writing.held(kind, named) is None:
        return None
    return json_format.parse(writing.present(kind, named).content).get("data")


def _digest(attachment: Json, data: Any) -> bytes | None:
    content = data if isinstance(data, str) else attachment.get("data")
    try:
        if isinstance(content, str):
            return hashlib.sha1(base64.b64decode(content), usedforsecurity=False).digest()
        said = attachment.get("hash")
        return base64.b64decode(said) if isinstance(said, str) else None
    except binascii.Error:
        return None
