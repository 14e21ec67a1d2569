"""DICOMweb, as PS3.18 defines it: Retrieve, Store and Search Transactions (sections 10.4 to 10.6),
the URI service (section 9), and the Worklist and Storage Commitment Services (sections 11 and 13).

A request is answered when the gate has closed behind it. Endpoints are plain functions, which run
in the threads that all doors share; only the pulling of a request's body goes through the event
loop. A reception takes as long as its sender does, so receptions have threads of their own: who
sends slowly, or stops, keeps nobody from searching and reading.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, tzinfo

from anyio import CapacityLimiter, WouldBlock, fail_after, from_thread, to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exchange.access import Exchange
from exchange.errors import Unavailable
from exchange.policy import Requester
from exchange_dicom import (
    media_types,
    telling,
    web_bulk,
    web_capabilities,
    web_changes,
    web_commitment,
    web_frames,
    web_ledger,
    web_metadata,
    web_rejection,
    web_rendered,
    web_retrieve,
    web_search,
    web_store,
    web_uri,
)
from exchange_dicom.lettering import LATIN, Lettering
from exchange_dicom.media_types import MediaType
from exchange_dicom.resources import Root, uid
from exchange_dicom.web_answers import takes_gzip
from exchange_dicom.web_errors import Route, SilentSender, problem
from exchange_dicom.web_rendered import Subject
from exchange_dicom.web_store import Limits
from exchange_dicom.web_worklist import Manners, add_worklist
from exchange_storage.search import Level

Identify = Callable[[Request], Requester]
"""Who sends a request. Raises NotAuthenticated."""

PIECE = 256 << 10
"""Bytes of a request's body that are pulled at once, each time with a change of threads."""

PATIENCE = 60.0
"""Seconds that a piece may take, or what there is of the last: 4 KiB/s is the slowest sender."""

RECEPTIONS = 32
"""Requests whose instances are received at a time, in each process."""

USUAL = (
    "/studies?PatientID=-&limit=1",
    "/studies?PatientName=-*&StudyDate=18000101&limit=1",
    "/studies/2.25.0/series",
    "/studies/2.25.0/series/2.25.0/instances",
    "/studies/2.25.0/metadata",
    "/studies/2.25.0/series/2.25.0/metadata",
    "/studies/2.25.0/series/2.25.0/instances/2.25.0",
    "/studies/2.25.0/series/2.25.0/instances/2.25.0/frames/1",
    "/studies/2.25.0/series/2.25.0/instances/2.25.0/rendered",
)
"""Questions as viewers ask them, of a patient and of a study that are nowhere."""


def dicomweb(
    exchange: Exchange,
    identify: Identify,
    *,
    limits: Limits | None = None,
    url: str = "",
    hanzi: bool = False,
    timezone: tzinfo = UTC,
    lettering: Lettering = LATIN,
) -> APIRouter:
    """The web door: the routes of the services, to be mounted under a prefix.

    `url` is where clients find it as it is set, with the prefix: documents are kept with these
    addresses, whatever address somebody asks at. With `hanzi`, JSON has names in their ideographic
    group alone, for a viewer that shows the alphabetic one only. `timezone` is that of the
    hospitals, for moments that come without an offset. `lettering` writes on pictures.
    """

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await channels.farewell()

    router = APIRouter(route_class=Route, tags=["DICOMweb"], lifespan=lifespan)
    bounds = limits or Limits()
    receptions = CapacityLimiter(RECEPTIONS)
    kept = Root(url)
    studies = "dicomweb.studies.hanzi" if hanzi else "dicomweb.studies"
    places: dict[str, str] = {}

    def root(request: Request) -> Root:
        if (place := places.get(root_path := request.scope.get("root_path", ""))) is None:
            place = request.url_for(studies).path.removesuffix("/studies")
            places[root_path] = place
        return Root(f"{request.url.scheme}://{request.url.netloc}{place}")

    def search(request: Request, level: Level, **within: str) -> Response:
        answer = web_search.search(
            exchange,
            identify(request),
            root(request),
            level,
            {_UNIQUE[name]: uid(value) for name, value in within.items()},
            request.query_params.multi_items(),
            accept=_accept(request),
            asked=request.url.path + "?" * bool(request.url.query) + request.url.query,
        )
        if hanzi and answer.body and (answer.media_type or "").endswith("json"):
            answer.body = telling.in_hanzi(bytes(answer.body))
            answer.headers["Content-Length"] = str(len(answer.body))
        return answer

    def store(request: Request, study: str | None) -> Response:
        return web_store.store(
            exchange,
            identify(request),
            root(request),
            request.headers.get("content-type", ""),
            _body(request),
            accept=_accept(request),
            study=study,
            limits=bounds,
        )

    async def receive(request: Request, take: Callable[[], Response]) -> Response:
        try:
            receptions.acquire_on_behalf_of_nowait(request)
        except WouldBlock:
            raise Unavailable("too many are sending; try again in a moment") from None
        try:
            return await to_thread.run_sync(take, limiter=CapacityLimiter(1))
        finally:
            receptions.release_on_behalf_of(request)

    def retrieve(
        request: Request, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        return web_retrieve.instances(
            exchange,
            identify(request),
            root(request),
            study,
            series,
            instance,
            accept=_accept(request),
        )

    def describe(
        request: Request, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        return web_metadata.metadata(
            exchange,
            identify(request),
            root(request),
            study,
            series,
            instance,
            kept=kept,
            hanzi=hanzi,
            accept=_accept(request),
            if_none_match=request.headers.get("if-none-match", ""),
            compressed=takes_gzip(request.headers.get("accept-encoding", "")),
        )

    def bulk_data(request: Request, study: str, series: str, instance: str, path: str) -> Response:
        return web_bulk.bulk_data(
            exchange,
            identify(request),
            root(request),
            study,
            series,
            instance,
            path,
            accept=_accept(request),
            if_none_match=request.headers.get("if-none-match", ""),
            asked=web_bulk.Asked(
                request.headers.get("range", ""), request.headers.get("if-range", "")
            ),
        )

    def render(
        request: Request,
        study: str,
        series: str | None = None,
        instance: str | None = None,
        frames: str | None = None,
        *,
        thumbnail: bool = False,
    ) -> Response:
        return web_rendered.rendered(
            exchange,
            identify(request),
            root(request),
            Subject(study, series, instance, frames),
            web_rendered.presentation(request.query_params),
            accept=_accept(request),
            if_none_match=request.headers.get("if-none-match", ""),
            thumbnail=thumbnail,
            annotation=web_rendered.written(request.query_params.get("annotation", "")),
            lettering=lettering,
            unused=web_rendered.unused(request.query_params),
        )

    @router.get("/studies", name=studies)
    def search_studies(request: Request) -> Response:
        return search(request, Level.STUDY)

    @router.get("/series")
    def search_series(request: Request) -> Response:
        return search(request, Level.SERIES)

    @router.get("/instances")
    def search_instances(request: Request) -> Response:
        return search(request, Level.IMAGE)

    @router.get("/studies/{study}/series")
    def search_series_of_study(request: Request, study: str) -> Response:
        return search(request, Level.SERIES, study=study)

    @router.get("/studies/{study}/instances")
    def search_instances_of_study(request: Request, study: str) -> Response:
        return search(request, Level.IMAGE, study=study)

    @router.get("/studies/{study}/series/{series}/instances")
    def search_instances_of_series(request: Request, study: str, series: str) -> Response:
        return search(request, Level.IMAGE, study=study, series=series)

    @router.post("/studies")
    async def store_instances(request: Request) -> Response:
        return await receive(request, lambda: store(request, None))

    @router.post("/studies/{study}")
    async def store_instances_of_study(request: Request, study: str) -> Response:
        named = uid(study)
        return await receive(request, lambda: store(request, named))

    @router.get("/studies/{study}")
    def retrieve_study(request: Request, study: str) -> Response:
        return retrieve(request, study)

    @router.get("/studies/{study}/series/{series}")
    def retrieve_series(request: Request, study: str, series: str) -> Response:
        return retrieve(request, study, series)

    @router.get("/studies/{study}/series/{series}/instances/{instance}")
    def retrieve_instance(request: Request, study: str, series: str, instance: str) -> Response:
        return retrieve(request, study, series, instance)

    @router.get("/studies/{study}/metadata")
    def describe_study(request: Request, study: str) -> Response:
        return describe(request, study)

    @router.get("/studies/{study}/series/{series}/metadata")
    def describe_series(request: Request, study: str, series: str) -> Response:
        return describe(request, study, series)

    @router.get("/studies/{study}/series/{series}/instances/{instance}/metadata")
    def describe_instance(request: Request, study: str, series: str, instance: str) -> Response:
        return describe(request, study, series, instance)

    @router.get(_INSTANCE + "/frames/{listed}")
    def retrieve_frames(
        request: Request, study: str, series: str, instance: str, listed: str
    ) -> Response:
        return web_frames.frames(
            exchange,
            identify(request),
            root(request),
            study,
            series,
            instance,
            listed,
            accept=_accept(request),
            if_none_match=request.headers.get("if-none-match", ""),
        )

    @router.get(_INSTANCE + "/bulkdata/{path:path}")
    def retrieve_bulk_data(
        request: Request, study: str, series: str, instance: str, path: str
    ) -> Response:
        return bulk_data(request, study, series, instance, path)

    @router.get(_INSTANCE + "/pixeldata")
    def retrieve_pixel_data(request: Request, study: str, series: str, instance: str) -> Response:
        return bulk_data(request, study, series, instance, web_bulk.PIXEL_DATA)

    def all_bulk_data(
        request: Request,
        study: str,
        series: str | None = None,
        instance: str | None = None,
        *,
        pixels: bool = False,
    ) -> Response:
        return web_bulk.several(
            exchange,
            identify(request),
            root(request),
            study,
            series,
            instance,
            pixels=pixels,
            accept=_accept(request),
        )

    @router.get("/studies/{study}/bulkdata")
    def bulk_data_of_study(request: Request, study: str) -> Response:
        return all_bulk_data(request, study)

    @router.get("/studies/{study}/series/{series}/bulkdata")
    def bulk_data_of_series(request: Request, study: str, series: str) -> Response:
        return all_bulk_data(request, study, series)

    @router.get(_INSTANCE + "/bulkdata")
    def bulk_data_of_instance(request: Request, study: str, series: str, instance: str) -> Response:
        return all_bulk_data(request, study, series, instance)

    @router.get("/studies/{study}/pixeldata")
    def pixel_data_of_study(request: Request, study: str) -> Response:
        return all_bulk_data(request, study, pixels=True)

    @router.get("/studies/{study}/series/{series}/pixeldata")
    def pixel_data_of_series(request: Request, study: str, series: str) -> Response:
        return all_bulk_data(request, study, series, pixels=True)

    @router.get("/studies/{study}/rendered")
    def render_study(request: Request, study: str) -> Response:
        return render(request, study)

    @router.get("/studies/{study}/series/{series}/rendered")
    def render_series(request: Request, study: str, series: str) -> Response:
        return render(request, study, series)

    @router.get(_INSTANCE + "/rendered")
    def render_instance(request: Request, study: str, series: str, instance: str) -> Response:
        return render(request, study, series, instance)

    @router.get(_INSTANCE + "/frames/{listed}/rendered")
    def render_frames(
        request: Request, study: str, series: str, instance: str, listed: str
    ) -> Response:
        return render(request, study, series, instance, listed)

    @router.get("/studies/{study}/thumbnail")
    def thumbnail_of_study(request: Request, study: str) -> Response:
        return render(request, study, thumbnail=True)

    @router.get("/studies/{study}/series/{series}/thumbnail")
    def thumbnail_of_series(request: Request, study: str, series: str) -> Response:
        return render(request, study, series, thumbnail=True)

    @router.get(_INSTANCE + "/thumbnail")
    def thumbnail_of_instance(request: Request, study: str, series: str, instance: str) -> Response:
        return render(request, study, series, instance, thumbnail=True)

    @router.get(_INSTANCE + "/frames/{listed}/thumbnail")
    def thumbnail_of_frames(
        request: Request, study: str, series: str, instance: str, listed: str
    ) -> Response:
        return render(request, study, series, instance, listed, thumbnail=True)

    @router.get("/wado")
    def retrieve_by_uri(request: Request) -> Response:
        return web_uri.retrieve(
            exchange,
            identify(request),
            root(request),
            request.query_params,
            accept=",".join(request.headers.getlist("accept")),
            lettering=lettering,
            if_none_match=request.headers.get("if-none-match", ""),
        )

    def reject(
        request: Request,
        code: str,
        study: str,
        series: str | None = None,
        instance: str | None = None,
    ) -> Response:
        return web_rejection.reject(exchange, identify(request), code, study, series, instance)

    def delete(
        request: Request, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        requester = identify(request)
        return web_rejection.delete(exchange, requester, root(request), study, series, instance)

    @router.post("/studies/{study}/reject/{code}")
    def reject_study(request: Request, study: str, code: str) -> Response:
        return reject(request, code, study)

    @router.post("/studies/{study}/series/{series}/reject/{code}")
    def reject_series(request: Request, study: str, series: str, code: str) -> Response:
        return reject(request, code, study, series)

    @router.post(_INSTANCE + "/reject/{code}")
    def reject_instance(
        request: Request, study: str, series: str, instance: str, code: str
    ) -> Response:
        return reject(request, code, study, series, instance)

    @router.delete("/studies/{study}")
    def delete_study(request: Request, study: str) -> Response:
        return delete(request, study)

    @router.delete("/studies/{study}/series/{series}")
    def delete_series(request: Request, study: str, series: str) -> Response:
        return delete(request, study, series)

    @router.delete(_INSTANCE)
    def delete_instance(request: Request, study: str, series: str, instance: str) -> Response:
        return delete(request, study, series, instance)

    @router.post("/commitment-requests/{transaction}")
    async def request_commitment(request: Request, transaction: str) -> Response:
        def ask() -> Response:
            return web_commitment.request(
                exchange,
                identify(request),
                transaction,
                request.headers.get("content-type", ""),
                _body(request),
                accept=_accept(request),
            )

        return await receive(request, ask)

    @router.get("/commitment-requests/{transaction}")
    def check_commitment(request: Request, transaction: str) -> Response:
        accept = _accept(request)
        return web_commitment.result(exchange, identify(request), transaction, accept=accept)

    channels = add_worklist(
        router,
        exchange,
        Manners(
            identify=identify,
            receive=receive,
            root=root,
            accept=_accept,
            body=_body,
            zone=timezone,
        ),
    )

    @router.get("/changefeed")
    def read_changes(request: Request) -> Response:
        return web_changes.feed(
            exchange,
            identify(request),
            root(request),
            request.query_params.multi_items(),
            accept=_accept(request),
        )

    @router.get("/changefeed/latest")
    def read_latest_change(request: Request) -> Response:
        return web_changes.latest(exchange, identify(request), accept=_accept(request))

    @router.get("/ledger/{day}")
    def read_ledger(request: Request, day: str) -> Response:
        accept = _accept(request)
        return web_ledger.read(exchange, identify(request), day, zone=timezone, accept=accept)

    @router.put("/ledger/{day}")
    async def tell_ledger(request: Request, day: str) -> Response:
        kind = request.headers.get("content-type", "")
        return await receive(
            request,
            lambda: web_ledger.tell(exchange, identify(request), day, kind, _body(request)),
        )

    @router.options("", include_in_schema=False)
    @router.options("/{rest:path}", include_in_schema=False)
    def tell_capabilities(request: Request, rest: str = "") -> Response:
        identify(request)
        return web_capabilities.capabilities(
            root(request), router.routes, rest, accept=_accept(request)
        )

    @router.get("/studies/{rest:path}", include_in_schema=False)
    def unknown(request: Request, rest: str) -> Response:  # noqa: ARG001
        identify(request)
        return problem(404, "there is no such resource below studies")

    return router


_INSTANCE = "/studies/{study}/series/{series}/instances/{instance}"
_UNIQUE = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID"}


def _accept(request: Request) -> tuple[MediaType, ...]:
    fields = request.headers.getlist("accept")
    return media_types.acceptable(request.query_params.get("accept"), ",".join(fields))


def _body(request: Request) -> Iterator[bytes]:
    """The body as it comes in, pulled from a worker thread. Raises ClientDisconnect."""
    stream = request.stream()
    while piece := from_thread.run(_pulled, stream):
        yield piece


async def _pulled(stream: AsyncIterator[bytes]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        with fail_after(PATIENCE):
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size >= PIECE:
                    break
    except TimeoutError:
        raise SilentSender from None
    return b"".join(pieces)
