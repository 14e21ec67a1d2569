"""Several who write one thing after another commit together; who writes alone waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from roles import eventually

from exchange import commits
from exchange.access import Exchange
from exchange.policy import Action, Requester, Role
from exchange_storage.database import Database
from exchange_storage.journal import Journal
from exchange_storage.objects import MemoryStore

NODE = Requester(name="node", role=Role.EXCHANGE, organization=None, purpose=None)


@pytest.fixture
def exchange(database_url: str, tmp_path: Path) -> Iterator[Exchange]:
    """An exchange into which several hospitals send."""
    journal = Journal(tmp_path / "journal")
    made = Exchange(Database(database_url), MemoryStore(), Ed25519PrivateKey.generate(), journal)
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def groups(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many units of work each commit had."""
    sizes: list[int] = []
    run = exchange._commits._run

    def counted(group: Sequence[Any]) -> None:
        units = sum(1 for one in group if one.unit is not None)
        if units:
            sizes.append(units)
        run(group)

    monkeypatch.setattr(exchange._commits, "_run", counted)
    return sizes


def keep(exchange: Exchange, wait: Callable[[], object] = lambda: None) -> None:
    with exchange.on_behalf_of(NODE) as access:
        access.note(Action.STORE)
        access.write(lambda _: wait())


def behind(exchange: Exchange, number: int, then: Callable[[], None] = lambda: None) -> None:
    """While an image is committed, `number` others come, and whose it was does what is `then`."""
    let_go = threading.Event()

    def first() -> None:
        keep(exchange, let_go.wait)
        then()

    with ThreadPoolExecutor() as hospitals:
        try:
            sent = [hospitals.submit(first)]
            eventually(lambda: exchange.committing, True)
            sent += [hospitals.submit(keep, exchange) for _ in range(number)]
            eventually(lambda: len(exchange._commits._waiting), number)
        finally:
            let_go.set()
    for one in sent:
        one.result()


def test_hospitals_that_send_at_the_same_time_are_committed_together(
    exchange: Exchange, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "COMPANY", 3600.0)
    behind(exchange, 2, then=lambda: keep(exchange))
    assert groups == [1, 3]


def test_who_sends_alone_waits_for_nobody(
    exchange: Exchange, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "COMPANY", 3600.0)
    for _ in range(5):
        keep(exchange)
    assert groups == [1] * 5


def test_who_was_waited_for_in_vain_is_not_waited_for_at_once_again(
    exchange: Exchange, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(exchange, 2)
    monkeypatch.setattr(commits, "COMPANY", 3600.0)
    keep(exchange)
    assert groups == [1, 2, 1]
