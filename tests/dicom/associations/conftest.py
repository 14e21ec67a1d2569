"""An archive that hospitals open associations with, patient and impatient."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from associating import IMPATIENT, Archive, accepting


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def port(archive: Archive) -> Iterator[int]:
    with accepting(archive) as acceptor:
        yield acceptor.addresses[0][1]


@pytest.fixture
def impatient_port(archive: Archive) -> Iterator[int]:
    with accepting(archive, conduct=IMPATIENT) as acceptor:
        yield acceptor.addresses[0][1]
