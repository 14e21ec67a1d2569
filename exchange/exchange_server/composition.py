"""The only place that knows concrete classes: settings in, an exchange and its doors out.

Doors are imported by the process that opens them: no command waits for what it does not use.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, NoReturn
from zoneinfo import ZoneInfo

from sqlalchemy.exc import ArgumentError, DBAPIError

from exchange import (
    audit,
    bulk,
    destruction,
    identity,
    jobs,
    notifying,
    priors,
    reindex,
    retention,
    retrieval,
    scrub,
    traffic,
    watching,
    workitems,
)
from exchange.access import Exchange
from exchange.errors import ExchangeError, Invalid, NotAuthenticated, Unavailable
from exchange.policy import Requester, Role
from exchange.watching import Status
from exchange_server import nodes
from exchange_server.keys import TokenKeys, audit_key, make_keys, page_key
from exchange_server.settings import Settings
from exchange_server.tokens import Tokens
from exchange_storage.database import Database, Newer
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.journal import Journal
from exchange_storage.objects import ObjectNotFound, ObjectStore, ObjectStoreError
from exchange_storage.spool import SpooledStore

if TYPE_CHECKING:
    from exchange_dicom.lettering import Lettering
    from exchange_fhir.serving import Conduct as FHIRConduct
    from exchange_server.app import Application
    from exchange_server.worker import Worker


log = logging.getLogger(__name__)

DICOMWEB = "/dicom-web"
"""Where the DICOMweb door is."""

SERVICE = Requester(
    name="exchange", role=Role.EXCHANGE, organization=None, purpose=None, door="cli"
)
"""The exchange itself, as it starts and ends."""

SCRUBBING = timedelta(seconds=20)
"""How long a worker reads again what is kept before it rests, twice as long."""

STRAGGLING = 60.0
"""Seconds until it is looked again for what is in the spool of another machine."""

REINDEXING = timedelta(seconds=20)
"""How long a worker indexes resources anew before it looks whether it is to stop."""


def initialise(settings: Settings) -> Exchange:
    """Make what is missing of the data directory and its keys, and open the exchange prepared.

    Safe to repeat: nothing that is there is replaced. Raises Invalid, Unavailable.
    """
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_keys(settings.keys)
    except OSError as error:
        raise Invalid(f"cannot write to {settings.data}: {error.strerror}") from error
    exchange = open_exchange(settings)
    try:
        migrate(exchange)
    except BaseException:
        exchange.close()
        raise
    return exchange


def migrate(exchange: Exchange) -> None:
    """Bring the index to this release. Raises Unavailable, or Invalid when it is a newer one's."""
    try:
        exchange.prepare()
    except DBAPIError as error:
        raise Unavailable(f"the index does not answer ({type(error.orig).__name__})") from error
    except Newer as error:
        raise Invalid("the index is of a newer release than this program") from error


def open_exchange(settings: Settings) -> Exchange:
    """The exchange that `settings` describe, not migrated. Raises Invalid, Unavailable."""
    key = audit_key(settings.keys)
    try:
        database = Database(settings.database, connections=settings.database_connections)
    except (ArgumentError, ImportError):  # whose texts would show the URL and its password
        raise Invalid("EXCHANGE_DATABASE_URL is not a URL of SQLite or PostgreSQL") from None
    try:
        return Exchange(database, open_store(settings), key, _journal(database), gathers=True)
    except ObjectStoreError as error:
        database.close()
        raise Unavailable(f"the object store cannot be opened: {error}") from error


def _journal(database: Database) -> Journal | None:
    """Beside an index that is a file. A server commits many at a time, and what waited on the disk
    of another machine could not be read here."""
    file = database.file
    return Journal(file.with_name(f"{file.name}-audit")) if file is not None else None


def open_store(settings: Settings) -> ObjectStore:
    """The object store that `settings` describe. Raises Invalid, StoreFull, StoreUnavailable."""
    match settings.object_store:
        case "filesystem":
            return FilesystemStore(settings.data / "objects")
        case "s3":
            from exchange_storage.s3 import S3Store

            spool = settings.spool or settings.data / "spool"
            try:
                remote = S3Store.connect(
                    settings.s3_endpoint,
                    settings.s3_access_key,
                    settings.s3_secret_key.get_secret_value(),
                    settings.s3_bucket,
                    secure=settings.s3_secure,
                    region=settings.s3_region,
                    staging=spool / "remote-staging",
                )
            except ValueError as error:  # the SDK's own, of a malformed bucket or endpoint
                raise Invalid(f"the settings of the S3 store are not valid: {error}") from error
            return SpooledStore(FilesystemStore(spool), remote)


def tell_watchers(exchange: Exchange, status: Status) -> None:
    """Tell those who watch worklists that the exchange is there again, or goes down."""
    with exchange.on_behalf_of(SERVICE) as access:
        watching.status_changed(access, status)


def say_goodbye(settings: Settings) -> None:
    """Tell them that it goes down; where that is not possible, it goes down all the same."""
    try:
        exchange = open_exchange(settings)
        try:
            tell_watchers(exchange, Status.GOING_DOWN)
        finally:
            exchange.close()
    except ExchangeError as error:
        log.warning("nobody is told that the exchange goes down: %s", type(error).__name__)


def token_keys(settings: Settings) -> TokenKeys:
    """The keys that sign access tokens."""
    return TokenKeys(settings.keys / "tokens")


def tokens(settings: Settings) -> Tokens:
    """Who issues access tokens and verifies them."""
    return Tokens(token_keys(settings), issuer=settings.http_url, lifetime=settings.token_lifetime)


def _lettering(settings: Settings) -> Lettering:
    """What writes on pictures. Raises Invalid."""
    from exchange_dicom.lettering import Lettering

    if settings.font is None:
        found = Lettering.of_the_system()
        if not found.writes_hanzi:
            log.warning(
                "no typeface with hanzi was found: names on pictures have Latin letters alone; "
                "install one (Debian: fonts-noto-cjk), or name one by EXCHANGE_FONT"
            )
        return found
    try:
        return Lettering(settings.font)
    except OSError:
        raise Invalid(f"EXCHANGE_FONT: {settings.font} is no typeface") from None


def application(exchange: Exchange, settings: Settings) -> Application:
    """The HTTP application with all its doors. Raises Invalid when a key is missing."""
    from exchange_dicom import web_openapi
    from exchange_dicom.web import USUAL, dicomweb
    from exchange_dicom.web_store import Limits
    from exchange_fhir import capability, openapi, rest
    from exchange_server import ranges
    from exchange_server.app import Door, create_app
    from exchange_server.cookies import Cookies
    from exchange_server.passwords import Passwords
    from exchange_server.portal import pages
    from exchange_server.portal.portal import portal
    from exchange_server.viewer import installation, viewer
    from exchange_server.viewer.launch import LAUNCHES, launch

    passwords = Passwords(exchange)
    cookies = Cookies(exchange, idle=settings.session_idle, whole=settings.session_lifetime)
    read = pages.Pages(cookies, ZoneInfo(settings.timezone))
    found = installation.installed(settings.viewer_files)
    web = partial(
        dicomweb,
        limits=Limits(instance_bytes=settings.instance_limit),
        url=f"{settings.http_url}{DICOMWEB}",
        timezone=ZoneInfo(settings.timezone),
        lettering=_lettering(settings),
    )
    doors = (
        Door(
            name="dicomweb",
            prefix=DICOMWEB,
            routes=web,
            takes_instances=True,
            cross_origin=True,
            paths=lambda router, prefix: web_openapi.paths(router.routes, prefix),
            schemas=web_openapi.SCHEMAS,
            usual=USUAL,
        ),
        Door(
            name=viewer.DOOR,
            prefix=viewer.DICOMWEB,
            routes=partial(web, hanzi=True),
            takes_instances=True,
            usual=USUAL,
        ),
        Door(
            name=viewer.DOOR,
            prefix=viewer.PREFIX,
            routes=lambda _, __: viewer.viewer(read, found),
        ),
        *(
            Door(name=viewer.DOOR, prefix=path, routes=lambda one, _: launch(one, read))
            for path in LAUNCHES
        ),
        Door(
            name="fhir",
            prefix="/fhir",
            cross_origin=True,
            routes=partial(
                rest.fhir,
                key=page_key(settings.keys),
                token_endpoint="/oauth/token",  # noqa: S106 - an address
                timezone=ZoneInfo(settings.timezone),
                conduct=_fhir_conduct(settings),
                send=ranges.send,
            ),
            body_limit=max(settings.fhir_body_limit, settings.fhir_binary_limit),
            paths=lambda _, prefix: openapi.paths(capability.statement(prefix), prefix),
            usual=rest.USUAL,
        ),
        Door(
            name=pages.DOOR,
            prefix=pages.PREFIX,
            routes=partial(
                portal,
                cookies=cookies,
                passwords=passwords,
                timezone=ZoneInfo(settings.timezone),
                foreseen=viewer.foreseen(found),
            ),
        ),
    )
    return create_app(
        exchange, settings, tokens(settings), doors, passwords=passwords, cookies=cookies
    )


def _fhir_conduct(settings: Settings) -> FHIRConduct:
    from exchange_fhir.serving import Conduct

    return Conduct(
        body_limit=settings.fhir_body_limit,
        binary_limit=settings.fhir_binary_limit,
        update_creates=settings.fhir_update_creates,
        dangling=settings.fhir_dangling_references,
        plain_http=settings.hook_http,
        cross_origin=bool(settings.web_origins),
    )


def worker(exchange: Exchange, settings: Settings) -> Worker:
    """A worker that knows every kind of job."""
    from exchange_dicom import commitment, series_metadata
    from exchange_dicom.forward import Credentials, deliver
    from exchange_dicom.notification import notify
    from exchange_dicom.resources import Root
    from exchange_fhir import ordered, telling
    from exchange_fhir.bulk import go_on
    from exchange_fhir.bundle import Pages
    from exchange_fhir.hooks import Hooks
    from exchange_fhir.serving import Serving
    from exchange_server.deriving import derive
    from exchange_server.observability import DAMAGE_FOUND, observe
    from exchange_server.worker import WORKER, Handler, Worker

    def nobody(_: object) -> NoReturn:
        raise NotAuthenticated("nobody asks a worker")

    timezone = ZoneInfo(settings.timezone)
    root = Root(f"{settings.http_url}{DICOMWEB}")
    fhir_url = f"{settings.http_url}/fhir"

    def link(exchange: Exchange, patient: str) -> None:
        with exchange.on_behalf_of(WORKER) as access:
            identity.identify(access, int(patient))

    def derive_all(exchange: Exchange, studies: Sequence[str]) -> None:
        derive(exchange, [int(study) for study in studies], fhir=fhir_url, timezone=timezone)

    def describe(exchange: Exchange, study: str) -> None:
        with exchange.on_behalf_of(WORKER) as access:
            held = retrieval.of_study(access, int(study), settled=True)
        try:
            series_metadata.derive(exchange, held, root)
        except Unavailable as error:
            if isinstance(error.__cause__, ObjectNotFound) and exchange.objects.may_come():
                # Until it is there, or a walk has it on its list: then none is made.
                raise jobs.Later(STRAGGLING) from error
            raise

    def checkpoint(exchange: Exchange, _: str) -> None:
        with exchange.on_behalf_of(WORKER) as access:
            access.catch_up()
            audit.checkpoint(access.session, access.objects)

    def count(exchange: Exchange, _: str) -> None:
        whole = False
        while not whole:
            with exchange.on_behalf_of(WORKER) as access:
                whole = traffic.count(access)

    client_tls = nodes.client_tls(settings)
    credentials = Credentials(netrc=settings.dicomweb_netrc, ca=settings.dicomweb_ca)
    choice = priors.Choice(studies=settings.priors_studies, days=settings.priors_days)

    def commit(exchange: Exchange, number: str) -> None:
        commitment.report(exchange, WORKER, int(number), calling=settings.ae_title, tls=client_tls)

    def tell(exchange: Exchange, subject: str) -> None:
        notify(exchange, WORKER, subject, calling=settings.ae_title, tls=client_tls)

    def forward(exchange: Exchange, number: str) -> None:
        deliver(
            exchange,
            WORKER,
            int(number),
            calling=settings.ae_title,
            timezone=timezone,
            tls=client_tls,
            credentials=credentials,
        )

    def fetch(exchange: Exchange, order: str) -> None:
        with exchange.on_behalf_of(WORKER) as access:
            priors.fetch(access, int(order), choice)

    def tell_of(exchange: Exchange, order: str) -> None:
        with exchange.on_behalf_of(WORKER) as access:
            ordered.refresh(access, int(order), base=fhir_url, timezone=timezone)

    def destroy(exchange: Exchange, study: str) -> None:
        with exchange.on_behalf_of(WORKER) as access:
            destruction.remove_objects(access, study)

    def read_again(exchange: Exchange, _: str) -> None:
        began = datetime.now(UTC)
        with exchange.on_behalf_of(WORKER) as access:
            walked = scrub.walk(access, days=settings.scrub_days, until=began + SCRUBBING)
        if walked.damaged:
            observe(DAMAGE_FOUND, walked.damaged)
        raise jobs.Later(max(2 * SCRUBBING, walked.again - began).total_seconds())

    def index_anew(exchange: Exchange, _: str) -> None:
        until = datetime.now(UTC) + REINDEXING
        with exchange.on_behalf_of(WORKER) as access:
            finished = reindex.walk(access, resource_reader(settings), until=until)
        if not finished:
            raise jobs.Later(0)

    def retain(exchange: Exchange, _: str) -> None:
        found = None
        while found is None or found:
            with exchange.on_behalf_of(WORKER) as access:
                found = retention.expired(access, limit=100, free=True)
            for study in found:
                with exchange.on_behalf_of(WORKER) as access:
                    retention.destroy(access, study)

    serving = Serving(
        exchange=exchange,
        identify=nobody,
        pages=Pages(secrets.token_bytes(32)),  # it gives nobody a link
        base_url=None,
        dicomweb=DICOMWEB,
        timezone=timezone,
        conduct=_fhir_conduct(settings),
    )

    def many(exchange: Exchange, number: str) -> None:
        go_on(exchange, WORKER, int(number), serving)

    hooks = Hooks(
        plain_http=settings.hook_http,
        networks=[ip_network(one) for one in settings.hook_networks],
        ca=settings.hook_ca,
    )

    def see(exchange: Exchange, _: str) -> None:
        telling.see(exchange, WORKER, serving)

    def tell_subscriber(exchange: Exchange, number: str) -> None:
        telling.tell(exchange, WORKER, int(number), serving, hooks)

    def tidy(exchange: Exchange, _: str) -> None:
        deleted = workitems.DELETED_AT_ONCE
        while deleted == workitems.DELETED_AT_ONCE:
            with exchange.on_behalf_of(WORKER) as access:
                deleted = workitems.tidy(access)
        removed = bulk.TIDIED
        while removed == bulk.TIDIED:
            with exchange.on_behalf_of(WORKER) as access:
                removed = bulk.tidy(access)
        with exchange.on_behalf_of(WORKER) as access:
            bulk.sweep(access)
        forgotten = notifying.FORGOTTEN
        while forgotten == notifying.FORGOTTEN:
            with exchange.on_behalf_of(WORKER) as access:
                forgotten = notifying.forget(access)

    handlers: dict[str, Handler] = {
        jobs.IDENTIFY: link,
        jobs.TIDY: tidy,
        jobs.BULK: many,
        jobs.HAPPENED: see,
        jobs.TELL: tell_subscriber,
        jobs.REFRESH: lambda exchange, study: derive_all(exchange, [study]),
        jobs.DESCRIBE: describe,
        jobs.CHECKPOINT: checkpoint,
        jobs.COUNT: count,
        jobs.COMMIT: commit,
        jobs.FORWARD: forward,
        jobs.NOTIFY: tell,
        jobs.PRIORS: fetch,
        jobs.REQUEST: tell_of,
        jobs.DESTROY: destroy,
        jobs.REINDEX: index_anew,
    }
    if settings.scrub_days:
        handlers[jobs.SCRUB] = read_again
    if settings.retention_automatic:
        handlers[jobs.RETAIN] = retain
    return Worker(exchange, handlers, {jobs.REFRESH: derive_all})


def resource_reader(settings: Settings) -> reindex.Reader:
    """What reads of a resource under what it is found, and whom it is about."""
    from exchange_fhir import writing

    place = writing.Place(base=f"{settings.http_url}/fhir", timezone=ZoneInfo(settings.timezone))
    return lambda content: writing.said(content, place)
