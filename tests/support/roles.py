"""Single roles of a small exchange, each in a process that a test starts, kills and limits."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from forked import started
from real_parts import LOOPBACK, Part, Process, S3Address
from region import ADMINISTRATOR, Region
from running import PASSWORD, RunningExchange
from sqlalchemy import func, select

from exchange import users
from exchange.policy import Role as UserRole
from exchange_storage.database import Database
from exchange_storage.records import Carried

PATIENCE = 180
"""Seconds until waiting ends; how fast it is the benchmarks say."""


class Role(Part):
    """`exchange node`, `exchange web` or `exchange worker`, alone; `prefix` starts it."""

    stop_within = 30.0

    def __init__(self, exchange: RunningExchange, role: str, prefix: Sequence[str] = ()) -> None:
        directory = exchange.home / role
        directory.mkdir(exist_ok=True)
        super().__init__(directory)
        self.exchange = exchange
        self.role = role
        self.prefix = prefix

    def command(self) -> Sequence[str]:
        return [*self.prefix, sys.executable, "-m", "exchange_server", self.role]

    def environment(self) -> dict[str, str]:
        return self.exchange.environment

    def launch(self, log: IO[bytes]) -> Process:
        if self.prefix:
            return super().launch(log)
        return started([self.role], self.environment(), directory=self.directory, output=(log, log))

    def answers(self) -> bool:
        """Whether its port is open; a worker has none."""
        ports = {"node": self.exchange.dimse_port, "web": self.exchange.http_port}
        if self.role not in ports:
            return True
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, ports[self.role])) == 0

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")


def drained(exchange: RunningExchange) -> None:
    """Wait until the worker has moved everything from index and spool to the remote store."""
    index = f"sqlite:///{exchange.home / 'exchange' / 'index.sqlite'}"
    database = Database(exchange.settings.get("EXCHANGE_DATABASE_URL", index))
    eventually(lambda: _carried(database), 0)
    database.close()
    spool = exchange.home / "exchange" / "spool" / "objects"
    # The worker removes folders while this looks into them, which `walk` does not mind.
    eventually(lambda: sum(len(files) for _, _, files in os.walk(spool)), 0)


def eventually(found: Callable[[], object], expected: object) -> None:
    """Ask until the answer is as expected."""
    deadline = time.monotonic() + PATIENCE
    while (answer := found()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answer == expected


def _carried(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Carried)) or 0


def remote(s3: S3Address, bucket: str) -> dict[str, str]:
    """Settings of an exchange that keeps its objects in an S3 store, behind its spool."""
    return {
        "EXCHANGE_OBJECT_STORE": "s3",
        "EXCHANGE_S3_ENDPOINT": s3.endpoint,
        "EXCHANGE_S3_ACCESS_KEY": s3.access_key,
        "EXCHANGE_S3_SECRET_KEY": s3.secret_key,
        "EXCHANGE_S3_BUCKET": bucket,
        "EXCHANGE_S3_SECURE": "false",
    }


def small_exchange(home: Path, settings: Mapping[str, str]) -> RunningExchange:
    """An exchange, not started, with the hospital beicheng, its clinician and its system.

    The hospital calls as BEICHENG; its users are `dr.beicheng` and `ris.beicheng`.
    """
    made = RunningExchange(home, settings)
    with made.opened() as exchange:
        Region(exchange).register("beicheng")
        for name, role in (("dr.beicheng", UserRole.CLINICIAN), ("ris.beicheng", UserRole.SYSTEM)):
            with exchange.on_behalf_of(ADMINISTRATOR) as access:
                users.add(
                    access,
                    name=name,
                    display_name=name,
                    role=role,
                    organization="beicheng",
                    password=PASSWORD,
                )
    return made
