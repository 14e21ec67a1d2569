"""Issuers: what hospitals are called as those who have issued a patient number.

A hospital is known to everybody by its OID. Its own systems call it otherwise: in their images
stands a local name, which says nothing outside, and may be another hospital's name there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from sqlalchemy.orm import Session

from exchange import organizations
from exchange.access import Access
from exchange.errors import Invalid
from exchange.policy import Action
from exchange_storage.records import Organization

_NAME = re.compile(r"[^\\*?\x00-\x1f\x7f]{1,64}")
"""A value of Issuer of Patient ID (VR LO) that is no pattern."""
LENGTH = 255
"""Characters of all names of a hospital, with what separates them."""


def meant(access: Access, issuer: str, *, locally: bool = True) -> Sequence[int]:
    """The hospitals that the asker means by an issuer, by row numbers: by its OID, or one that is
    like a pattern with ``*`` and ``?``; and `locally` by a name of the asker's own, or its code,
    the asker alone.
    """
    if not set(issuer) & set("*?"):
        found = organizations.by_issuer(access.session, issuer)
        if found is not None:
            return [found.id]
    asker = access.requester.organization if locally else None
    like = issuer.replace("[", "[[]")  # which is no wildcard of DICOM's
    return [
        one.id
        for one in organizations.everyone(access.session)
        if fnmatchcase(one.issuer, like)
        or (one.id == asker and any(fnmatchcase(name, like) for name in _names(one)))
        # In any case of letters: that of another hospital means nobody.
        or (one.id == asker and fnmatchcase(one.code, like.lower()))
    ]


def called(access: Access, code: str) -> Sequence[str]:
    """What a hospital's own systems call it as an issuer, beside its OID and its code, for who
    administers it. Raises Refused, NotFound."""
    access.require(Action.ADMINISTER, detail={"code": code})
    return _names(organizations.administered(access, code))


def names(access: Access, code: str, wanted: Sequence[str]) -> None:
    """These are what a hospital's own systems call it as an issuer, and no others any more.

    Raises Refused, NotFound, and Invalid for what is no such name, or is another hospital's.
    """
    about = {"code": code, "issuer names": list(wanted)}
    access.require(Action.ADMINISTER, detail=about)
    together = "\\".join(dict.fromkeys(wanted))
    if not all(map(_NAME.fullmatch, wanted)) or len(together) > LENGTH:
        raise Invalid(
            "the name of an issuer has 1 to 64 characters without backslash, * and ?, and all of "
            f"them {LENGTH}"
        )

    def unit(session: Session) -> None:
        organization = organizations.administered(access, code, session)
        for other in organizations.everyone(session):
            taken = {other.issuer, f"urn:oid:{other.issuer}", other.code}
            if other.id != organization.id and taken & {name.lower() for name in wanted}:
                raise Invalid("another hospital has one of these as its code or issuer")
        organization.issuer_names = together
        access.note(Action.ADMINISTER, reason="issuer names set", detail=about)

    access.write(unit)


def _names(organization: Organization) -> list[str]:
    return [name for name in organization.issuer_names.split("\\") if name]
