"""A small region that is asked as if it were a large one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exchange import ways


@contextmanager
def crowded() -> Iterator[None]:
    """Conditions are taken to have many rows, and chains to lead through many, as soon as any."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("FEW", 1), ("VERY_FEW", 1), ("LED", 0)):
            patch.setattr(ways, name, size)
        yield
