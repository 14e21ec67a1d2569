"""The roles of a running exchange, each a process of its own: `node`, `desk`, `web`, `worker`.

A role says when it is ready by sd_notify(3), to systemd and to `exchange serve` alike, and ends by
SIGTERM: it accepts no more, finishes what it has accepted, and exits 0.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext, suppress
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

import uvicorn

from exchange.access import Exchange
from exchange.errors import Invalid, Unavailable
from exchange_server import composition, metrics, nodes
from exchange_server.connection import CONNECTIONS, WEBSOCKET_MESSAGE, Connection, Conversation
from exchange_server.forking import named
from exchange_server.observability import (
    ROLE_READY,
    ROLE_STOPPED,
    log_to_stderr,
    observe,
    reserve,
)
from exchange_server.settings import SUPERVISOR, Settings, host_port
from exchange_server.starting import imported_for_good
from exchange_storage import names

if TYPE_CHECKING:
    from exchange_dicom.listener import Acceptor
    from exchange_server.app import Application

log = logging.getLogger(__name__)

STOP = (signal.SIGTERM, signal.SIGINT)

_PR_SET_PDEATHSIG = 1


class Role(StrEnum):
    """What a process does."""

    NODE = "node"
    DESK = "desk"
    WEB = "web"
    WORKER = "worker"


_IMPORTED = (
    "exchange_dicom.forward",
    "exchange_dicom.node",
    "exchange_dicom.notification",
    "exchange_dicom.web",
    "exchange_dicom.web_openapi",
    "exchange_fhir.bulk",
    "exchange_fhir.openapi",
    "exchange_fhir.rest",
    "exchange_fhir.telling",
    "exchange_server.app",
    "exchange_server.deriving",
    "exchange_server.identities",
    "exchange_server.portal.portal",
    "exchange_server.viewer.launch",
    "exchange_server.worker",
    "prometheus_client",
    "pydantic.v1",  # FastAPI looks whether it knows annotations
    "uvloop",
)
"""What brings all else along that a role imports as it starts."""


def prepare(exchange: Exchange, settings: Settings) -> None:
    """Import what the roles need and put their statements into words, for forks of this process.

    Raises Unavailable.
    """
    with imported_for_good():
        for module in _IMPORTED:
            import_module(module)
        names.prepare()
        if settings.web_rehearsal:  # or each of them would read the units for itself
            from exchange_fhir import units

            units.prepare()
        exchange.put_into_words()


def run(role: Role, settings: Settings) -> None:
    """Be `role` until SIGTERM or SIGINT. Raises Invalid, Unavailable when it cannot start."""
    named(f"exchange {role}")
    _end_with_supervisor()
    log_to_stderr(level=settings.log_level, form=settings.log_format, role=role)
    reserve_room(settings)
    match role:
        case Role.NODE:
            _node(settings)
        case Role.DESK:
            _desk(settings)
        case Role.WEB:
            _web(settings)
        case Role.WORKER:
            _worker(settings)
    observe(ROLE_STOPPED, role=role)


def reserve_room(settings: Settings) -> None:
    """Have room for what this process will count. Raises Unavailable."""
    try:
        reserve()
    except OSError as error:
        raise Unavailable(f"{settings.run}: {error.strerror}: make room on that disk") from error


def notify(state: str) -> None:
    """Tell `state` to whoever supervises this process (sd_notify(3)); nobody may.

    One that was killed does not listen any more: SIGTERM is on its way then, and ends this process.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with (
            suppress(ConnectionRefusedError, FileNotFoundError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        ):
            told.sendto(state.encode(), f"\0{address[1:]}" if address[0] == "@" else address)


def _ready(role: Role) -> None:
    observe(ROLE_READY, role=role)
    notify(f"READY=1\nMAINPID={os.getpid()}")


def _node(settings: Settings) -> None:
    with imported_for_good():
        names.prepare()
        exchange = composition.open_exchange(settings)
        acceptors = nodes.dicom_nodes(exchange, settings, composition.tokens(settings))
    _serve(Role.NODE, exchange, acceptors, settings)


def _desk(settings: Settings) -> None:
    with imported_for_good():
        names.prepare()
        exchange = composition.open_exchange(settings)
        desk = nodes.desk(exchange, settings)
    _serve(Role.DESK, exchange, [desk], settings)


def _serve(
    role: Role, exchange: Exchange, acceptors: Sequence[Acceptor], settings: Settings
) -> None:
    def stop() -> None:
        stopping = [
            threading.Thread(target=one.stop, args=(settings.stop_seconds,)) for one in acceptors
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def serve() -> None:
        others = [threading.Thread(target=one.serve_forever) for one in acceptors[1:]]
        for thread in others:
            thread.start()
        acceptors[0].serve_forever()
        for thread in others:
            thread.join()

    with _metrics(exchange, settings):
        _until_told(role, serve, stop)
    exchange.close()


def _worker(settings: Settings) -> None:
    os.nice(10)  # later work yields the processor to those who wait for an answer
    with imported_for_good():
        exchange = composition.open_exchange(settings)
        worker = composition.worker(exchange, settings)
    stop = threading.Event()
    with _metrics(exchange, settings):
        _until_told(Role.WORKER, lambda: worker.run(stop), stop.set)
    exchange.close()


def _metrics(exchange: Exchange, settings: Settings) -> AbstractContextManager[None]:
    """What a role that runs alone shows of itself; of others the web process does."""
    return nullcontext() if SUPERVISOR in os.environ else metrics.shown(exchange, settings)


def _until_told(role: Role, serve: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `serve` on a thread until a signal comes or it ends by itself; then `stop` it.

    The main thread waits for the signal instead of being interrupted by it, so that no handler
    runs in the middle of anything. Raises RuntimeError when `serve` ended by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    told = threading.Event()

    def serving() -> None:
        try:
            serve()
        except Exception:
            log.exception("the role failed")
        finally:
            if not told.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=serving, name=str(role))
    thread.start()
    _ready(role)
    signal.sigwait(STOP)
    failed = not thread.is_alive()
    told.set()
    stop()
    thread.join()
    if failed:
        raise RuntimeError(f"the {role} ended by itself")


def _web(settings: Settings) -> None:
    # uvicorn takes the signals while it runs and raises them again afterwards: for nobody then. One
    # that comes before is kept for it.
    told = threading.Event()
    for number in STOP:
        signal.signal(number, lambda *_: told.set())
    with imported_for_good():
        names.prepare()
        exchange = composition.open_exchange(settings)
        app = composition.application(exchange, settings)
        if settings.web_rehearsal:
            _rehearse(exchange, app, told)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        limit_concurrency=CONNECTIONS,
        ws=Conversation,
        ws_max_size=WEBSOCKET_MESSAGE,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.http_trusted_proxies),
        forwarded_allow_ips=list(settings.http_trusted_proxies),
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.stop_seconds),
        ssl_certfile=settings.http_tls_certificate,
        ssl_keyfile=settings.http_tls_key,
    )
    shared = SUPERVISOR in os.environ and settings.web_processes > 1
    sockets = [_listening(host, settings, shared=shared) for host in settings.http_addresses]
    try:
        _Web(config, app, told).run(sockets)
    finally:
        for one in sockets:
            one.close()
        exchange.close()


def _rehearse(exchange: Exchange, app: Application, told: threading.Event) -> None:
    """Before anybody is served: what is asked first takes no longer than what is asked then."""
    try:
        exchange.put_into_words()
    except Unavailable:  # it may answer by and by; /ready says so meanwhile
        return
    asyncio.run(app.rehearse(told.is_set))


class _Web(uvicorn.Server):
    """uvicorn, that says when it listens, and lets doors end before their connections do."""

    def __init__(self, config: uvicorn.Config, app: Application, told: threading.Event) -> None:
        """`told`: a signal has come before uvicorn took them."""
        super().__init__(config)
        self._app = app
        self._told = told
        self._doors = AsyncExitStack()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._doors.enter_async_context(self._app.router.lifespan_context(self._app))
        await super().startup(sockets)
        if self.started:
            _ready(Role.WEB)
        self.should_exit |= self._told.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn would end the lifespan when the connections, to which something may be said
        # still, have been closed.
        await self._doors.aclose()
        await super().shutdown(sockets)


def check_free(settings: Settings) -> None:
    """Raise Unavailable where somebody else listens on an address of HTTP already.

    For whoever starts several web processes: they share addresses, and would share them with
    another exchange.
    """
    for host in settings.http_addresses if settings.web_processes else ():
        _listening(host, settings, shared=False).close()


def _listening(host: str, settings: Settings, *, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        where = host_port(host, settings.http_port)
        raise Unavailable(f"cannot listen on {where}: {error.strerror}") from error
    return listener


def _end_with_supervisor() -> None:
    """Be sent SIGTERM when the supervisor dies, however it dies (prctl(2), Linux only)."""
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(supervisor):
        raise Invalid("the supervisor has ended meanwhile")
