"""Metrics of `exchange node` and `exchange worker` where they run alone: a door for Prometheus.

Under `exchange serve` the web process tells those of all, at its own /metrics.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from exchange import organizations
from exchange.access import Exchange
from exchange.errors import Unavailable
from exchange_server.observability import exposition
from exchange_server.readiness import Readiness
from exchange_server.settings import Settings, host_port

SECONDS = 10.0
"""Within which a request has to come."""


@contextmanager
def shown(exchange: Exchange, settings: Settings) -> Iterator[None]:
    """Tell them at `metrics_port` until the block ends; nobody where it is not set.

    Raises Unavailable where it cannot listen there.
    """
    if settings.metrics_port is None:
        yield
        return
    readiness = Readiness(exchange)
    with ExitStack() as open_:
        for host in settings.http_addresses:
            door = _listening(host, settings.metrics_port, readiness, settings)
            thread = threading.Thread(target=door.serve_forever, name="metrics", daemon=True)
            thread.start()
            open_.callback(door.server_close)
            open_.callback(door.shutdown)
        yield


def _listening(host: str, port: int, readiness: Readiness, settings: Settings) -> _Door:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # The class decides by this attribute, so that there is one class for each.
        kind = type("Door", (_Door,), {"address_family": family})
        door: _Door = kind((host, port), _Answer)
    except OSError as error:
        where = host_port(host, port)
        raise Unavailable(f"cannot listen on {where}: {error.strerror}") from error
    door.readiness, door.settings = readiness, settings
    return door


class _Door(ThreadingHTTPServer):
    daemon_threads = True
    readiness: Readiness
    settings: Settings

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Who is not of the networks that are set is not listened to: each costs a thread."""
        peer = organizations.normal(str(client_address[0]))
        return any(peer in network for network in self.settings.metrics_networks)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever goes away before the answer is no matter for the log."""


class _Answer(BaseHTTPRequestHandler):
    server: _Door
    timeout = SECONDS
    server_version, sys_version = "exchange", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        content, media_type = exposition(self.server.readiness)
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: a scrape a minute is not news."""
