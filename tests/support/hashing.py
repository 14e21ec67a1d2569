"""Passwords hashed at the least cost: as released, each takes a fifth of a second and 64 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from argon2 import PasswordHasher

from exchange import users

_RELEASED = users._HASHER
_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@contextmanager
def cheap() -> Iterator[None]:
    """What this process hashes costs next to nothing, and so does knowing it again anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_HASHER", _CHEAP)
        yield


@contextmanager
def as_released() -> Iterator[None]:
    """What this process hashes costs as much as in earnest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_HASHER", _RELEASED)
        yield
