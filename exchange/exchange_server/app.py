"""The HTTP application: every door under one roof, with health, metrics and the manners of HTTP."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Any

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import AnyHttpUrl
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exchange.access import Exchange
from exchange_server import addresses, authentication, openapi, rehearsal
from exchange_server.authentication import Identify
from exchange_server.cookies import Cookies
from exchange_server.observability import REQUEST, exposition, observe
from exchange_server.passwords import Passwords
from exchange_server.readiness import NEEDED, Readiness
from exchange_server.settings import Settings
from exchange_server.shelves import Shelves
from exchange_server.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One of the doors: where it is, and the function from an exchange to its routes."""

    name: str
    """What the audit trail calls it."""
    prefix: str
    routes: Callable[[Exchange, Identify], APIRouter]
    takes_instances: bool = False
    """Then it limits its own bodies."""
    body_limit: int | None = None
    """Bytes of its longest body, where that is not what holds for all."""
    paths: Callable[[APIRouter, str], Mapping[str, Any]] | None = None
    """The OpenAPI Paths Object of its routes below the prefix; without it they are not told of."""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """The schemas to which that refers."""
    cross_origin: bool = False
    """Whether web applications of other origins may ask it, where such are set."""
    usual: Sequence[str] = ()
    """Questions of usual forms, below the prefix, that are about nobody: see `rehearsal`."""


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Set where the door has not set its own. What is answered here must not stay in any cache."""

QUERY_LIMIT = 64 << 10
"""Bytes of the longest query of a URL."""

BODY_SECONDS = 120.0
"""How long a body may take to come, where the door does not limit its own."""

SLOWEST = 64 << 10
"""Bytes a second at which a longer one comes at least."""

LOOKS = 4
"""Looks at health and metrics at a time, in threads of their own: told also when all are busy."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that become labels: a client must not invent others."""


class Application(FastAPI):
    """All doors."""

    def __init__(self, *, usual: Sequence[str], **given: Any) -> None:
        """`usual` are the questions that its doors name as such."""
        super().__init__(**given)
        self._usual = usual

    async def rehearse(self, told_to_stop: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Be asked them by nobody; what each was answered with (see `rehearsal`)."""
        return await rehearsal.rehearse(self, self._usual, told_to_stop)


def create_app(
    exchange: Exchange,
    settings: Settings,
    tokens: Tokens,
    doors: Sequence[Door],
    *,
    passwords: Passwords | None = None,
    cookies: Cookies | None = None,
) -> Application:
    """The application that serves `exchange`, with `doors` beside its own routes.

    With `cookies`, doors know a user by the session of their browser, too.
    """
    documented = settings.http_documentation
    routers: list[APIRouter] = []

    @asynccontextmanager
    async def lifespan(served: FastAPI) -> AsyncIterator[None]:
        """Doors begin and end with the application: it does not include their routers."""
        async with AsyncExitStack() as stack:
            for one in routers:
                await stack.enter_async_context(one.lifespan_context(served))
            yield

    app = Application(
        usual=[f"{door.prefix}{one}" for door in doors for one in door.usual],
        title="Imaging exchange",
        openapi_url="/openapi.json" if documented else None,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        lifespan=lifespan,
    )
    described: list[tuple[Door, APIRouter]] = []
    for door in doors:
        identify = rehearsal.identify(
            authentication.identify(exchange, tokens, door.name, cookies), door.name
        )
        router = door.routes(exchange, identify)
        routers.append(router)
        app.router.routes.append(Shelves(router, door.prefix))
        described.append((door, router))

    @cache
    def description() -> dict[str, Any]:
        """Made when somebody asks for it, which takes longer than to make the routes of a door."""
        paths = [door.paths(one, door.prefix) for door, one in described if door.paths is not None]
        return openapi.document(paths, {k: v for door in doors for k, v in door.schemas.items()})

    app.openapi = description  # type: ignore[method-assign]
    if cookies is not None:

        @app.get("/", include_in_schema=False)
        async def first() -> Response:
            """People come to the pages."""
            return RedirectResponse("/portal/", 303)

    app.include_router(authentication.sign_in(exchange, tokens, passwords))

    looks = CapacityLimiter(LOOKS)
    readiness = Readiness(exchange)

    @app.get("/health")
    async def health() -> Response:
        """Alive: it answers. Whether it can serve is for /ready to say."""
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        """Whether requests should be sent here now; what does not answer is named."""
        wrong = await to_thread.run_sync(readiness.parts, limiter=looks)
        serves = not any(wrong[part] for part in NEEDED)
        told = {part: "unavailable" if error else "ok" for part, error in wrong.items()}
        body = {"status": "ready" if serves else "unavailable", "parts": told}
        return JSONResponse(body, status_code=200 if serves else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """For Prometheus, from the networks that are set."""
        peer = addresses.address(request)
        if not peer or not any(ip_address(peer) in one for one in settings.metrics_networks):
            return PlainTextResponse("not from this address\n", status_code=403)
        content, media_type = await to_thread.run_sync(exposition, readiness, limiter=looks)
        return Response(content, media_type=media_type)

    if settings.web_origins:
        prefixes = [door.prefix for door in doors if door.cross_origin]
        app.add_middleware(_CrossOrigin, prefixes=prefixes, origins=settings.web_origins)
    app.add_middleware(
        _Manners, doors=doors, body_limit=settings.http_body_limit, public_url=settings.public_url
    )
    return app


class _CrossOrigin:
    """Lets web applications of some origins ask some doors (the Fetch standard, CORS).

    Nobody is known there by a cookie of theirs: each request shows a token.
    """

    def __init__(self, app: ASGIApp, prefixes: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._prefixes = tuple(f"{one}/" for one in prefixes)
        self._asked = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=_TAKEN,
            expose_headers=_SHOWN,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and f"{scope['path']}/".startswith(self._prefixes)
        await (self._asked if asked else self._app)(scope, receive, send)


_TAKEN = (
    *("Accept", "Authorization", "Content-Type", "Prefer", "Range", "X-Security-Context"),
    *("If-Match", "If-Modified-Since", "If-None-Exist", "If-None-Match", "If-Range"),
)
"""Headers of requests that have a meaning to a door."""

_SHOWN = ("ETag", "Location", "Content-Location", "Last-Modified", "Content-Range")
"""Headers of answers that a web application may read beside those that it may always."""


class _Manners:
    """Headers, limits of queries and bodies, and the access log of every answer.

    The log has the template of the route, never the path: paths and queries hold what somebody
    asked for.
    """

    def __init__(
        self, app: ASGIApp, doors: Sequence[Door], body_limit: int, public_url: AnyHttpUrl | None
    ) -> None:
        self._app = app
        self._public = public_url
        self._doors = doors
        self._limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._public is not None and scope["type"] in ("http", "websocket"):
            # So that every door's links are the clients', not a proxy's.
            scheme = self._public.scheme
            scope["scheme"] = scheme if scope["type"] == "http" else scheme.replace("http", "ws")
            MutableHeaders(scope=scope)["host"] = str(self._public).partition("//")[2].rstrip("/")
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        door = next((one for one in self._doors if scope["path"].startswith(one.prefix)), None)
        method = scope["method"]
        if method == "HEAD":  # is what GET is, and the server sends no body (RFC 9110 9.3.2)
            scope = {**scope, "method": "GET"}
        showed_token = "authorization" in Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                challenge = headers.get("WWW-Authenticate", "")
                if status == 401 and showed_token and challenge.startswith("Bearer"):
                    joined = ", " if " " in challenge else " "
                    headers["WWW-Authenticate"] = f'{challenge}{joined}error="invalid_token"'
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        if door is None or not door.takes_instances:
            limit = self._limit if door is None else door.body_limit or self._limit
            announced = int(Headers(scope=scope).get("content-length", "0"))
            receive = self._bounded(receive, announced, limit)
        try:
            if len(scope["query_string"]) > QUERY_LIMIT:
                refusal = PlainTextResponse("the query is too long\n", status_code=414)
                await refusal(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        finally:
            if not rehearsal.is_one(scope):
                observe(
                    REQUEST,
                    time.perf_counter() - began,
                    method=method if method in _METHODS else "other",
                    route=_template(scope, door),
                    status=str(status),
                    also={"client": (scope.get("client") or ("",))[0]},
                )

    def _bounded(self, receive: Receive, announced: int, limit: int) -> Receive:
        """`receive`, answering 413 to a body that is too long, announced or not; 408 when late."""
        read = 0
        more = True
        began = time.monotonic()

        async def bounded() -> Message:
            nonlocal read, more
            if announced > limit:
                raise HTTPException(413, f"a request may have at most {limit} bytes")
            try:
                # Behind the body comes only that the client has gone, however late.
                late = began + max(BODY_SECONDS, read / SLOWEST)
                with fail_after(late - time.monotonic() if more else None):
                    message = await receive()
            except TimeoutError:
                headers = {"Connection": "close"}
                raise HTTPException(408, "the body did not come in time", headers) from None
            more = message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > limit:
                raise HTTPException(413, f"a request may have at most {limit} bytes")
            return message

        return bounded


def _template(scope: Scope, door: Door | None) -> str:
    """The path of the route as it was written, with the door's prefix; "none" without a route."""
    route: BaseRoute | None = scope.get("route")
    path = getattr(route, "path", None)
    if path is None:
        return "none"
    return str(path) if door is None or path.startswith(door.prefix) else f"{door.prefix}{path}"
