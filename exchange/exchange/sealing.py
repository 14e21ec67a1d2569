"""Secrets of others that the exchange has to tell again, such as a subscriber's token: kept sealed.

Whoever reads the index, or a backup of it, does not read them. The key is made of the one that
signs the audit trail, which lies beside the index, not in it (RFC 5869; Fernet).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange.errors import Invalid
from exchange_storage.records import Subscription

_FOR = b"secrets of others in the index"


def sealed(key: Ed25519PrivateKey, secret: str) -> str:
    """A secret as it may be kept."""
    return _box(key.private_bytes_raw()).encrypt(secret.encode()).decode("ascii")


def opened(key: Ed25519PrivateKey, kept: str) -> str:
    """The secret. Raises Invalid where it was sealed with another key."""
    try:
        return _box(key.private_bytes_raw()).decrypt(kept.encode()).decode()
    except InvalidToken:
        raise Invalid("what is sealed was sealed with another key: give it anew") from None


SEALED = "sealed"
"""Stands behind name and value of a header that is kept so; earlier releases kept them plain."""


def header(key: Ed25519PrivateKey, name: str, value: str) -> list[str]:
    """A header of a subscription as it is kept."""
    return [name, sealed(key, value), SEALED]


def headers(key: Ed25519PrivateKey, kept: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """The headers of a subscription. Raises Invalid as `opened`."""
    return [(name, opened(key, value) if how else value) for name, value, *how in kept]


def seal(session: Session, key: Ed25519PrivateKey) -> None:
    """Seal what an earlier release kept plain."""
    for one in session.scalars(select(Subscription)):
        if any(len(told) == 2 for told in one.headers):
            one.headers = [
                list(told) if len(told) > 2 else header(key, *told) for told in one.headers
            ]


@lru_cache(4)
def _box(key: bytes) -> Fernet:
    made = HKDF(algorithm=SHA256(), length=32, salt=None, info=_FOR).derive(key)
    return Fernet(base64.urlsafe_b64encode(made))
