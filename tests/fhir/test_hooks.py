"""Calling subscribers: only addresses that may be called, whatever a host is written as."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from subscribed import LOOPBACK, Endpoint, endpoint

from exchange_fhir.hooks import Hooks, NotTaken

OPEN = Hooks(plain_http=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0", "0.0.0.0",  # noqa: S104
        "localhost", "::1", "::", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "169.254.169.254",
        "2852039166", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200",
        "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "224.0.0.1", "255.255.255.255",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "198.18.0.1", "no.such.host.invalid",
    ],
)  # fmt: skip
def test_no_address_of_the_inside_is_called(host: str) -> None:
    with pytest.raises(NotTaken):
        OPEN.address(host, 443)


def test_addresses_of_the_open_network_are_called_and_others_where_a_setting_names_them() -> None:
    for address in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"):
        assert OPEN.is_allowed(ip_address(address))
    inside = Hooks(networks=[ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
    assert inside.is_allowed(ip_address("10.1.2.3"))
    assert inside.is_allowed(ip_address("fd00::5"))
    assert not inside.is_allowed(ip_address("192.168.1.1"))
    everything = Hooks(networks=[ip_network("0.0.0.0/0"), ip_network("::/0")])
    for address in (
        *("169.254.169.254", "0.1.2.3", "fd00:ec2::254", "224.0.0.1"),
        *("169.254.1.1", "fe80::1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::ffff:a9fe:a9fe"),
    ):
        assert not everything.is_allowed(ip_address(address))


def test_the_address_that_was_looked_at_is_the_one_that_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is at another address with every question, as in DNS rebinding."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *rest: Any, **named: Any) -> Any:
        if host != "rebinds.example":
            return real(host, *rest, **named)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with endpoint() as hook:
        port = hook.host.rpartition(":")[2]
        LOOPBACK.post(f"http://rebinds.example:{port}/", b"{}", [], "application/json", 5)
        assert asked == ["rebinds.example"]
        assert hook.received[0][0]["Host"] == f"rebinds.example:{port}"
        with pytest.raises(NotTaken):
            OPEN.post(f"http://rebinds.example:{port}/", b"{}", [], "application/json", 5)


def test_a_name_with_one_address_inside_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [(socket.AF_INET, 1, 6, "", (one, 443)) for one in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)
    with pytest.raises(NotTaken):
        OPEN.address("two.example", 443)


def test_a_resolver_that_does_not_answer_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.wait() and [])
    try:
        with pytest.raises(NotTaken, match="not resolved in time"):
            OPEN.post("http://silent.example/", b"{}", [], "application/json", 1)
    finally:
        answers.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ftp://127.0.0.1/", "//x", "http://[::1"])
def test_only_https_is_called_where_no_setting_says_otherwise(url: str) -> None:
    with pytest.raises(NotTaken):
        Hooks(networks=[ip_network("127.0.0.0/8")]).post(url, b"", [], "text/plain", 1)


def test_an_endpoint_shows_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    known = authority.issue("hook")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(known.certificate, known.key)
    networks = [ip_network("127.0.0.0/8")]
    trusting = Hooks(networks=networks, ca=authority.certificate)
    with endpoint(tls) as hook:
        url = hook.url.replace("localhost", "127.0.0.1")
        headers = [("Authorization", "Bearer x"), ("User-Agent", "theirs")]
        trusting.post(url, b"{}", headers, "application/fhir+json", 5)
        sent, body = hook.received.pop()
        assert (sent["Authorization"], sent["User-Agent"], body) == ("Bearer x", "theirs", b"{}")
        with pytest.raises(NotTaken, match=r"not trusted.*EXCHANGE_HOOK_CA"):
            Hooks(networks=networks).post(url, b"{}", [], "application/fhir+json", 5)
        (tmp_path / "nothing.pem").write_text("no certificate")
        for name in ("nothing.pem", "not-there.pem"):
            mistaken = Hooks(networks=networks, ca=tmp_path / name)
            with pytest.raises(NotTaken, match="EXCHANGE_HOOK_CA names cannot be read"):
                mistaken.post(url, b"{}", [], "application/fhir+json", 5)
        assert hook.received == []


@contextmanager
def trickling() -> Iterator[Endpoint]:
    """An endpoint that answers one byte after the other, and never comes to an end."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not stopped.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield Endpoint(f"http://{host}/", host)
        finally:
            stopped.set()
            thread.join()


def test_an_answer_that_only_trickles_is_cut_off() -> None:
    with trickling() as slow:
        began = time.monotonic()
        with pytest.raises(NotTaken):
            LOOPBACK.post(slow.url, b"{}", [], "application/json", 1)
        assert time.monotonic() - began < 30  # it would be for ever
