"""Keys on disk: made here, readable by their owner only, never in the database.

`audit.pem` signs the audit trail (Ed25519, RFC 8032); `tokens/*.jwk` sign access tokens (ES256,
RFC 7518 section 3.4); `pages.key` seals the links between pages of an answer. On several machines
all nodes share one directory, by whatever distributes secrets there.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeyParameters

from exchange.errors import Invalid

ALGORITHM = "ES256"

LONGEST_LIFETIME = timedelta(hours=24)
"""No token lives longer; so long a key verifies after the next one took over."""

_AUDIT = "audit.pem"
_PAGES = "pages.key"


def make_keys(directory: Path) -> None:
    """Make what is missing of all keys; one that is there stays."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Ed25519PrivateKey.generate()
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _keep(directory / _AUDIT, pem)
    _keep(directory / _PAGES, secrets.token_bytes(32))
    TokenKeys(directory / "tokens").ensure()


def audit_key(directory: Path) -> Ed25519PrivateKey:
    """The key that signs the audit trail. Raises Invalid when there is none, or another kind."""
    try:
        key = load_pem_private_key((directory / _AUDIT).read_bytes(), password=None)
    except FileNotFoundError:
        raise Invalid(f"there are no keys in {directory}; run `exchange init`") from None
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(f"the audit key cannot be read: {type(error).__name__}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Invalid("the audit key is not an Ed25519 key")
    return key


def page_key(directory: Path) -> bytes:
    """The key that seals the links between pages: 32 bytes. Raises Invalid."""
    try:
        return (directory / _PAGES).read_bytes()
    except OSError as error:
        raise Invalid(f"{directory / _PAGES} cannot be read; run `exchange init`") from error


@dataclass(frozen=True, slots=True)
class _Ring:
    """The keys as they lay in the directory when it had this modification time."""

    seen: int
    keys: dict[str, ECKey]
    """By `kid`, the oldest first."""


class TokenKeys:
    """The keys that sign access tokens: the newest signs, the older ones verify until they expire.

    A `kid` begins with the time at which its key was made, so names tell the order. Keys that
    another process made are seen at the next use.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ring = _Ring(-1, {})
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Make the first key, unless there is one."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._keys():
            self._make()

    def rotate(self) -> str:
        """Make a new signing key, remove those whose tokens have all expired; returns its `kid`."""
        kept = list(self._keys())
        for kid, successor in pairwise(kept):
            if datetime.now(UTC) - _made(successor) > LONGEST_LIFETIME + timedelta(hours=1):
                (self._directory / f"{kid}.jwk").unlink(missing_ok=True)
        return self._make()

    def signing(self) -> tuple[str, ECKey]:
        """The newest key and its `kid`. Raises Invalid when there is none."""
        keys = self._keys()
        if not keys:
            raise Invalid("there is no key to sign tokens with; run `exchange init`")
        return next(reversed(keys.items()))

    def verifying(self, kid: object) -> ECKey | None:
        """The key of this `kid`, or None."""
        return self._keys().get(kid) if isinstance(kid, str) else None

    def present(self) -> object:
        """The keys as they are now: another object as soon as one was added or removed."""
        return self._keys()

    def public(self) -> dict[str, list[dict[str, Any]]]:
        """The public keys, as RFC 7517 section 5 writes a set."""
        keys = self._keys().values()
        return {"keys": [dict(key.as_dict(private=False)) for key in reversed(keys)]}

    def _keys(self) -> dict[str, ECKey]:
        try:
            seen = self._directory.stat().st_mtime_ns
        except OSError:
            return {}
        if self._ring.seen != seen:
            with self._lock:
                self._ring = _Ring(seen, dict(self._read()))
        return self._ring.keys

    def _read(self) -> list[tuple[str, ECKey]]:
        try:
            return [
                (path.stem, ECKey.import_key(json.loads(path.read_bytes())))
                for path in sorted(self._directory.glob("[!.]*.jwk"))
            ]
        except (OSError, ValueError, JoseError) as error:
            raise Invalid(f"a token key cannot be read: {type(error).__name__}") from error

    def _make(self) -> str:
        kid = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"
        named: KeyParameters = {"kid": kid, "use": "sig", "alg": ALGORITHM}
        made = ECKey.generate_key("P-256", named, private=True)
        _keep(self._directory / f"{kid}.jwk", json.dumps(made.as_dict(private=True)).encode())
        return kid


def _made(kid: str) -> datetime:
    return datetime.strptime(kid.partition("-")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)


def _keep(path: Path, secret: bytes) -> None:
    """Write a file for its owner only, whole or not at all; one that is there already stays."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            path.hardlink_to(aside)
    finally:
        aside.unlink()
