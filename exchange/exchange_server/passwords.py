"""Names and passwords at every door that takes them, and the limits of trying.

Tries are counted together for all doors of a process, so that nobody has twice as many by trying
at two of them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import replace
from ipaddress import IPv6Network

from exchange import users
from exchange.access import Exchange
from exchange.audit import Outcome
from exchange.errors import NotAuthenticated, TooManyTries, Unavailable
from exchange.policy import Action, Purpose, Requester, Role
from exchange_storage.records import Organization, User

FAILURES = 10
"""Wrong passwords for one name from one address within `WINDOW`; then it has to wait."""
ADDRESS_FAILURES = 60
"""The same for all names together from one address."""
WINDOW = 60.0
REMEMBERED = 10_000
"""Names and addresses whose failures are counted at a time."""

HASHES = 4
"""Passwords verified at a time: argon2 takes 64 MiB for each."""
PATIENCE = 5.0
"""Seconds that a request waits for its turn with a password."""


class Passwords:
    """Who knows which password; what is wrong is counted, and what is tried too often refused."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._failures = Refusals()
        self._turns = threading.BoundedSemaphore(HASHES)

    def known(
        self, claimed: Requester, password: str, purpose: Purpose | None
    ) -> tuple[Requester, User, Organization | None]:
        """Who `claimed` is, if the password is theirs; the purpose is what they state.

        A refusal is audited. Raises NotAuthenticated, TooManyTries, Unavailable.
        """
        source = source_of(claimed.address)
        if self._failures.of_late(source, claimed.name) >= FAILURES or (
            self._failures.of_late(source) >= ADDRESS_FAILURES
        ):
            raise TooManyTries("too many wrong passwords; wait a minute")
        if not self._turns.acquire(timeout=PATIENCE):
            raise Unavailable("too many are signing in; try again in a moment")
        try:
            return self._verified(claimed, password, purpose)
        except NotAuthenticated:
            self._failures.add(source, claimed.name)
            raise
        finally:
            self._turns.release()

    def _verified(
        self, claimed: Requester, password: str, purpose: Purpose | None
    ) -> tuple[Requester, User, Organization | None]:
        user: User | None = None
        organization: Organization | None = None
        recorded = replace(claimed, name=claimed.name[:64])
        with self._exchange.on_behalf_of(recorded) as access:
            try:
                user = users.authenticate(access.session, claimed.name, password)
            except NotAuthenticated as error:
                access.note(Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=str(error))
            else:
                if user.organization_id is not None:
                    organization = access.session.get(Organization, user.organization_id)
        if user is None:
            raise NotAuthenticated("the user name or the password is wrong")
        known = replace(
            recorded, role=Role(user.role), organization=user.organization_id, purpose=purpose
        )
        return known, user, organization


class Refusals:
    """Wrong passwords and refused tokens of late, by their source, and by source and name.

    Counted in each process by itself: with n processes somebody has n times as many tries. What is
    beyond the limits is not audited again, so that nobody can flood the trail.
    """

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, str | None], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def of_late(self, source: str, name: str | None = None) -> int:
        """How many there were within `WINDOW` from `source`: for `name`, or for all together."""
        with self._lock:
            return len(self._within((source, name)))

    def add(self, source: str, name: str | None = None) -> None:
        """One more."""
        now = time.monotonic()
        with self._lock:
            for who in {(source, name), (source, None)}:
                self._at[who] = [*self._within(who), now]
                self._at.move_to_end(who)
            while len(self._at) > REMEMBERED:
                self._at.popitem(last=False)

    def _within(self, who: tuple[str, str | None]) -> list[float]:
        since = time.monotonic() - WINDOW
        return [at for at in self._at.get(who, ()) if at > since]


def source_of(address: str) -> str:
    """As what an address is counted: of IPv6 its /64, all of which one host has (RFC 6177)."""
    if ":" not in address:
        return address
    return str(IPv6Network((address.partition("%")[0], 64), strict=False))
