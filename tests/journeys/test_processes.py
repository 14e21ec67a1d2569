"""Several processes of HTTP: one address, which no other exchange takes as well."""

from __future__ import annotations

from pathlib import Path

import httpx2
from running import PASSWORD, RunningExchange

from exchange_server.settings import MOST_PROCESSES, Settings


def web_processes(exchange: RunningExchange) -> list[int]:
    named = {one: Path(f"/proc/{one}/comm").read_text() for one in exchange.processes()}
    return [one for one, name in named.items() if name == "exchange web\n"]


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
        assert len(web_processes(first)) == 3

        refused = second.run("serve", status=1)
        assert f"cannot listen on 127.0.0.1:{first.http_port}" in refused.stderr
        for _ in range(20):  # each on a connection of its own: whichever process has it answers
            assert httpx2.get(f"{first.url}/health").json() == {"status": "ok"}
    finally:
        first.stop()


def test_as_many_serve_as_there_are_processors_where_nobody_says_otherwise() -> None:
    assert 1 <= Settings().web_processes <= MOST_PROCESSES
    assert Settings(web_processes=7).web_processes == 7
