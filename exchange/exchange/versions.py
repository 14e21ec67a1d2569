"""Which version of a resource must be the current one for it to be changed (RFC 9110 13.1.1)."""

from __future__ import annotations

from collections.abc import Container

from exchange.errors import Stale


class _Any:
    """The versions of which there is one: numbers from 1 on."""

    def __contains__(self, version: object) -> bool:
        return isinstance(version, int) and version > 0


ANY: Container[int] = _Any()
"""Whichever it is, as long as there is one."""


def require(wanted: Container[int] | None, current: int | None) -> None:
    """Raises Stale unless the current version, None or 0 if there is none, is one of those wanted,
    if that matters."""
    if wanted is not None and (not current or current not in wanted):
        raise Stale("the version that was named is not the current one: read it again")
