"""A region with its DICOM node in the test's own process, on a free port."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from caller import SUCCESS, calling, image
from images import data_set
from region import Region, region
from sqlalchemy import func, select

from exchange.access import Exchange
from exchange_dicom.conversation import Limits, Observed
from exchange_dicom.desk import WayToDesk
from exchange_dicom.identity import Verify, unverifiable
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import Conduct
from exchange_dicom.node import node
from exchange_dicom.transport_security import Contexts
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import ObjectStore
from exchange_storage.records import Instance


@dataclass(frozen=True, slots=True)
class Served:
    """A region whose node listens on `port` and keeps its objects below `root`."""

    city: Region
    port: int
    root: Path
    acceptor: Acceptor

    def held(self) -> tuple[int, int, int]:
        """How many instances the index has, how many objects there are, and what is half-way."""
        self.city.exchange.objects.put_down()
        with self.city.exchange.database.reading() as session:
            rows = session.scalar(select(func.count()).select_from(Instance)) or 0
        objects = sum(path.is_file() for path in (self.root / "objects").rglob("*"))
        staged = [path for path in (self.root / "staging").rglob("*") if path.is_file()]
        return rows, objects, sum(path.name != "lock" for path in staged)

    def kept(self, instance: str) -> list[bytes]:
        """The data sets that lie there under an SOP Instance UID."""
        self.city.exchange.objects.put_down()
        found = sorted((self.root / "objects").rglob(f"{instance}.*.dcm"))
        return [data_set(path.read_bytes()) for path in found]

    def goes_on(self) -> None:
        """A good image is still kept and found, in an association of its own."""
        rows, objects, _ = self.held()
        instance = f"1.9.{rows}.{objects}"
        with calling(self.port) as pacs:
            assert pacs.echo() == SUCCESS
            assert pacs.store(image(instance=instance), instance).status == SUCCESS
        assert self.kept(instance) == [image(instance=instance)]
        assert self.held() == (rows + 1, objects + 1, 0)


@contextlib.contextmanager
def serving(
    tmp_path: Path,
    limits: Limits | None = None,
    conduct: Conduct | None = None,
    *,
    database_url: str | None = None,
    tls: Contexts | None = None,
    client_tls: ssl.SSLContext | None = None,
    objects: ObjectStore | None = None,
    verifying: Callable[[Exchange], Verify] = lambda _: unverifiable,
    observed: Observed = lambda _, __: None,
    way_to_desk: WayToDesk | None = None,
) -> Iterator[Served]:
    """A region and its node, in this process, until the block ends.

    `verifying` makes what knows the users whom associations name.
    """
    root = tmp_path / "store"
    tmp_path.mkdir(exist_ok=True)
    url = database_url or f"sqlite:///{tmp_path / 'index.sqlite'}"
    with region(url, objects or FilesystemStore(root)) as city:
        acceptor = node(
            city.exchange,
            ae_title="EXCHANGE",
            addresses=[("127.0.0.1", 0)],
            conduct=conduct,
            limits=limits,
            tls=tls,
            client_tls=client_tls,
            verify=verifying(city.exchange),
            observed=observed,
            way_to_desk=way_to_desk,
        )
        with accepting(acceptor):
            yield Served(city, acceptor.addresses[0][1], root, acceptor)


@contextlib.contextmanager
def accepting(acceptor: Acceptor) -> Iterator[Acceptor]:
    """Have it serve, until the block ends."""
    thread = threading.Thread(target=acceptor.serve_forever)
    thread.start()
    try:
        yield acceptor
    finally:
        acceptor.stop(20)
        thread.join(180)
