"""Kept instances to another node by C-STORE (PS3.4 annex B): what C-MOVE and routing share.

Each SOP class is proposed in the transfer syntax of each of its instances, in a context of its own,
and once more without compression: the receiver takes what it can, and gets that.
"""

from __future__ import annotations

import queue
import ssl
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from exchange import retrieval
from exchange.errors import ExchangeError
from exchange.retrieval import Held, Selected
from exchange_dicom import dimse, requestor, status, transcoding
from exchange_dicom.association import Association
from exchange_dicom.coercion import Coercion, needed
from exchange_dicom.dimse import CommandField
from exchange_dicom.header import DataSetError
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import CONTEXTS, UpperLayerError
from exchange_dicom.requestor import Address, Proposal
from exchange_dicom.states import AssociationEnded, AssociationRejected
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.records import ApplicationEntity

NOT_TAKEN = "the receiver does not take this SOP class"
"""Why an instance was not sent at all."""

UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""In which everything is proposed a second time."""

ENDED_IN_VAIN = 3
"""Associations in a row, each ended before anything was answered, after which it is enough."""
TRANSIENT_ATTEMPTS, TRANSIENT_SECONDS = 3, 1.0
"""How often, and after which pause, a receiver is asked again that is full for now."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An instance to be sent, and how its patient is to be called."""

    held: Held
    coercion: Coercion | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one: the receiver's status, or None where it never answered; in words."""

    outgoing: Outgoing
    status: int | None
    reason: str = ""
    unanswered: bool = False
    """Whether the receiver never answered, rather than that nothing was sent."""

    @property
    def stored(self) -> bool:
        """Whether the receiver has it now."""
        return self.status == status.SUCCESS or self.warned

    @property
    def warned(self) -> bool:
        """Whether it has it with a remark."""
        return self.status is not None and status.warns(self.status)


def outgoing(selected: Sequence[Selected], receiver: str) -> list[Outgoing]:
    """The instances of `selected` as the hospital with the issuer OID `receiver` is to get them."""
    now = datetime.now(UTC)
    return [
        Outgoing(held, coercion)
        for one in selected
        for coercion in (needed(one, receiver, now),)
        for held in one.instances
    ]


def address_of(entity: ApplicationEntity, *, calling: str, tls: ssl.SSLContext | None) -> Address:
    """Where a registered entity listens; over TLS when it is bound to a certificate.

    Never plain then: without `tls` there is no way to it.
    """
    return Address(
        host=entity.address,
        port=entity.port or 0,
        called=entity.title,
        calling=calling,
        tls=tls if entity.certificate_fingerprint else None,
        fingerprint=entity.certificate_fingerprint,
    )


def send(
    address: Address,
    wanted: Sequence[Outgoing],
    *,
    originator: tuple[str, int] | None = None,
    parallel: int = 1,
    stop: threading.Event | None = None,
    conduct: Conduct | None = None,
) -> Generator[Result]:
    """Send all of `wanted`, over up to `parallel` associations, and tell of each when answered.

    `originator` is the AE title and Message ID of the C-MOVE-RQ that is served. What an association
    that breaks had in hand is unanswered; the rest is too when no other is left to send it. A peer
    that aborts, leaves or falls silent at one instance, as some do that cannot read it, is sent the
    others anew. Once
    `stop` is set nothing more is begun: what is under way is told, and then it ends. Raises
    UpperLayerError when no association is made at all, and what was not foreseen as it came.
    """
    halt = stop or threading.Event()
    told = 0
    for batch, proposals in _batches(wanted):
        waiting = deque(batch)
        failure: UpperLayerError | None = None
        associations, again, in_vain = parallel, 0, 0
        while waiting and not halt.is_set():
            failure, ended, answered = None, False, False
            with closing(
                _shared(address, waiting, proposals, originator, associations, halt, conduct)
            ) as results:
                for result in results:
                    if isinstance(result, Result):
                        told += 1
                        ended |= result.unanswered
                        answered |= result.status is not None
                        yield result
                    else:
                        failure = result
            if ended:
                in_vain = 0 if answered else in_vain + 1
                if in_vain < ENDED_IN_VAIN:
                    continue
            # One alone after several, since a receiver that is full may have turned all of them
            # away; and again after a while where it says that it is so for now.
            for_now = isinstance(failure, AssociationRejected) and failure.told.transient
            if (associations == 1 and not for_now) or again == TRANSIENT_ATTEMPTS:
                break
            if waiting and for_now:
                halt.wait(TRANSIENT_SECONDS)
            associations, again = 1, again + 1
        if halt.is_set():
            return
        if waiting:
            if not told and failure is not None:
                raise failure
            told += len(waiting)
            yield from (Result(one, None, str(failure), unanswered=True) for one in waiting)


def _shared(
    address: Address,
    waiting: deque[Outgoing],
    proposals: Sequence[Proposal],
    originator: tuple[str, int] | None,
    parallel: int,
    halt: threading.Event,
    conduct: Conduct | None,
) -> Generator[Result | UpperLayerError]:
    """Empty `waiting` over associations that take from it what comes next; and why one broke."""
    associations = min(parallel, len(waiting))
    if associations <= 1:
        alone = _over_one(address, waiting, proposals, originator, 1, halt, conduct)
        with closing(alone) as results:
            yield from results
        return
    told: queue.Queue[tuple[Result | UpperLayerError | None, threading.Event]] = queue.Queue()
    unforeseen: list[Exception] = []

    def work() -> None:
        heard = threading.Event()
        try:
            for one in _over_one(
                address, waiting, proposals, originator, associations, halt, conduct
            ):
                heard.clear()
                told.put((one, heard))
                # So that whoever is told can still halt before the next is begun.
                heard.wait()
        except Exception as error:  # raised where somebody waits for the result
            unforeseen.append(error)
        finally:
            told.put((None, heard))

    threads = [threading.Thread(target=work, name="sending") for _ in range(associations)]
    for thread in threads:
        thread.start()
    working = associations
    try:
        while working:
            one, heard = told.get()
            if one is None:
                working -= 1
                if unforeseen:
                    raise unforeseen[0]
                continue
            try:
                yield one
            finally:
                heard.set()
    except BaseException:
        halt.set()  # whoever asked has gone, or one of the threads has come to grief
        while working:
            one, heard = told.get()
            heard.set()
            working -= one is None
        raise
    finally:
        for thread in threads:
            thread.join()


@dataclass(frozen=True, slots=True)
class _Ready:
    """What only has to be sent: the first of its pieces is there."""

    outgoing: Outgoing
    context_id: int
    pieces: Iterator[bytes | memoryview]


class Line:
    """C-STORE as SCU of one instance after another, over one association.

    Each is made ready while the receiver still looks at the one before: found, read, decompressed.
    """

    def __init__(
        self,
        association: Association,
        coming: Iterator[Outgoing],
        offered: Callable[[str], Sequence[tuple[int, str]]],
        *,
        not_offered: str = NOT_TAKEN,
        originator: tuple[str, int] | None = None,
        plenty: Callable[[], bool] = lambda: True,
    ) -> None:
        """`offered` gives the contexts for a SOP class, as (id, transfer syntax); with `plenty`
        something may be taken ahead, and no other line goes without."""
        self._association = association
        self._coming = coming
        self._offered = offered
        self._not_offered = not_offered
        self._originator = originator
        self._plenty = plenty
        self._ahead: _Ready | Result | None = None
        self._sent = 0
        self.at: Outgoing | None = None
        """What was begun to be sent, and is not answered."""

    def results(self, stop: threading.Event) -> Iterator[Result]:
        """Send until nothing comes any more, or `stop` is set, and tell of each when answered.

        Raises AssociationEnded, and whatever an instance could not be read to its end for.
        """
        while not stop.is_set():
            now, self._ahead = self._ahead or self._next(), None
            if now is None:
                return
            if isinstance(now, Result):
                yield now
                continue
            self.at = now.outgoing
            number = self._send(now)
            if self._plenty():
                self._ahead = self._next()
            answer = self._association.next_response(number).command
            self.at = None
            yield Result(now.outgoing, answer.status, answer.error_comment)

    def left(self) -> Outgoing | None:
        """What had been taken from `coming`, and was not begun."""
        return None if self._ahead is None else self._ahead.outgoing

    def _send(self, ready: _Ready) -> int:
        held = ready.outgoing.held
        self._sent += 1
        number = (self._sent - 1) % 65535 + 1  # PS3.7 9.1: a number is used again once answered
        command = dimse.request(
            CommandField.C_STORE_RQ,
            number,
            held.sop_class_uid,
            held.sop_instance_uid,
            data_set_present=True,
            move_originator=self._originator,
        )
        self._association.send(ready.context_id, command, ready.pieces)
        return number

    def _next(self) -> _Ready | Result | None:
        one = next(self._coming, None)
        if one is None:
            return None
        held = one.held
        if held.damaged:
            return Result(one, None, retrieval.DAMAGED)
        offered = self._offered(held.sop_class_uid)
        if not offered:
            return Result(one, None, self._not_offered)
        try:
            syntaxes = [uid for _, uid in offered]
            syntax = transcoding.choose(held.transfer_syntax_uid, syntaxes, one.coercion)
            pieces = transcoding.data_set_of(held, syntax, one.coercion)
            first = next(pieces, b"")  # what cannot be made fails here, before anything is sent
        except (CannotTranscode, DataSetError, ExchangeError) as error:
            return Result(one, None, str(error))
        context_id = next(number for number, uid in offered if uid == syntax)
        return _Ready(one, context_id, chain((first,), pieces))


def _over_one(
    address: Address,
    waiting: deque[Outgoing],
    proposals: Sequence[Proposal],
    originator: tuple[str, int] | None,
    associations: int,
    halt: threading.Event,
    conduct: Conduct | None,
) -> Generator[Result | UpperLayerError]:
    """Over one of `associations`, until nothing waits any more or it breaks, which is told last.

    An instance that turns out to be unreadable half-way costs its association, and no other.
    """
    while waiting and not halt.is_set():
        at: Outgoing | None = None
        try:
            with requestor.connect(address, proposals, conduct=conduct) as association:
                line = Line(
                    association,
                    _taken(waiting),
                    association.offered,
                    originator=originator,
                    plenty=lambda: len(waiting) >= associations,
                )
                try:
                    yield from line.results(halt)
                finally:
                    at = line.at
                    if (unsent := line.left()) is not None:  # another association may send it
                        waiting.appendleft(unsent)
        except (CannotTranscode, DataSetError, ExchangeError) as error:
            if at is not None:
                yield Result(at, None, str(error))
        except UpperLayerError as error:
            if at is not None:
                yield Result(at, None, str(error), unanswered=True)
            yield error
            return


def _taken(waiting: deque[Outgoing]) -> Iterator[Outgoing]:
    """What waits, as others take from it too."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def _batches(wanted: Sequence[Outgoing]) -> Iterator[tuple[list[Outgoing], list[Proposal]]]:
    """What fits into the contexts of one association each, and those contexts."""
    batch: list[Outgoing] = []
    proposals: dict[tuple[str, str], Proposal] = {}
    for one in wanted:
        sop_class, kept = one.held.sop_class_uid, one.held.transfer_syntax_uid
        needed = {
            (sop_class, kept): Proposal(sop_class, (kept,)),
            (sop_class, ""): Proposal(sop_class, UNCOMPRESSED),
        }
        if len(proposals.keys() | needed.keys()) > CONTEXTS:
            yield batch, list(proposals.values())
            batch, proposals = [], {}
        batch.append(one)
        proposals |= needed
    if batch:
        yield batch, list(proposals.values())


__all__ = ["AssociationEnded", "Line", "Outgoing", "Result", "address_of", "outgoing", "send"]
