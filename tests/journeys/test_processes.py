"""Several processes of HTTP: one address, which no other exchange takes as well."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial
from pathlib import Path

import httpx2
import pytest
from caller import EXPLICIT, STUDY_FIND, SUCCESS, Caller, Hung, calling, identifier, image
from roles import eventually, small_exchange
from running import PASSWORD, RunningExchange

from exchange_dicom.desk import address
from exchange_server.settings import MOST_PROCESSES, Settings


def processes(exchange: RunningExchange, role: str) -> list[int]:
    named = {one: Path(f"/proc/{one}/comm").read_text() for one in exchange.processes()}
    return [one for one, name in named.items() if name == f"exchange {role}\n"]


def test_several_processes_share_an_address_and_another_exchange_is_told_that_it_is_taken(
    tmp_path: Path,
) -> None:
    first = RunningExchange(tmp_path / "first", {"EXCHANGE_WEB_PROCESSES": "3"})
    port = {"EXCHANGE_HTTP_PORT": str(first.http_port), "EXCHANGE_WEB_PROCESSES": "2"}
    second = RunningExchange(tmp_path / "second", port)
    for one in (first, second):
        one.home.mkdir()
        one.run("init", "--password-stdin", given=f"{PASSWORD}\n")
    first.start()
    try:
        assert len(processes(first, "web")) == 3

        refused = second.run("serve", status=1)
        assert f"cannot listen on 127.0.0.1:{first.http_port}" in refused.stderr
        for _ in range(20):  # each on a connection of its own: whichever process has it answers
            assert httpx2.get(f"{first.url}/health").json() == {"status": "ok"}
    finally:
        first.stop()


def test_as_many_serve_as_there_are_processors_where_nobody_says_otherwise() -> None:
    assert 1 <= Settings().web_processes <= MOST_PROCESSES
    assert Settings(web_processes=7).web_processes == 7


def test_a_desk_that_is_killed_takes_with_it_what_it_answered_and_nothing_else(
    tmp_path: Path,
) -> None:
    exchange = small_exchange(tmp_path, {})
    question = identifier((0x0020000D, "UI", "1.2.1"))
    exchange.start()
    try:
        with calling(exchange.dimse_port) as brings:
            assert brings.store(image(), "1.4.1").status == SUCCESS
            for _ in range(2):  # what is started in its place does the same
                (desk,) = processes(exchange, "desk")
                with Caller(exchange.dimse_port, (STUDY_FIND, (EXPLICIT,))) as asks:
                    assert len(asks.find(question)) == 2
                    os.kill(desk, signal.SIGKILL)
                    with pytest.raises(Hung):
                        asks.message()
                with Caller(exchange.dimse_port, (STUDY_FIND, (EXPLICIT,))) as asks:
                    assert len(asks.find(question)) == 2
                assert brings.echo() == SUCCESS
                eventually(partial(another, exchange, desk), True)
    finally:
        exchange.stop()


def another(exchange: RunningExchange, desk: int) -> bool:
    """Whether another desk than that one listens."""
    if processes(exchange, "desk") in ([desk], []):
        return False
    with (
        address(exchange.home / "exchange" / "run") as listens,
        socket.socket(socket.AF_UNIX) as it,
    ):
        return it.connect_ex(listens) == 0
