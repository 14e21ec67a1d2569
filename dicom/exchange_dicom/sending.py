"""Kept instances to another node by C-STORE (PS3.4 annex B): what C-MOVE and routing share.

Each SOP class is proposed in the transfer syntax of each of its instances, in a context of its own,
and once more without compression: the receiver takes what it can, and gets that.
"""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from exchange.errors import ExchangeError
from exchange.retrieval import Held, Selected
from exchange_dicom import dimse, requestor, status, transcoding
from exchange_dicom.association import Association
from exchange_dicom.coercion import Coercion
from exchange_dicom.dimse import CommandField
from exchange_dicom.header import DataSetError
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import CONTEXTS, UpperLayerError
from exchange_dicom.requestor import Address, Proposal, Requested
from exchange_dicom.states import AssociationEnded
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.records import ApplicationEntity

SYSTEM = "Imaging Exchange"
"""Who coerced, in Original Attributes Sequence."""

_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


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

    @property
    def stored(self) -> bool:
        """Whether the receiver has it now."""
        return self.status == status.SUCCESS or self.warned

    @property
    def warned(self) -> bool:
        """Whether it has it with a remark."""
        return self.status in status.STORED_WITH_WARNING


def outgoing(selected: Sequence[Selected], receiver: str) -> list[Outgoing]:
    """The instances of `selected` as the hospital with the issuer OID `receiver` is to get them."""
    now = datetime.now(UTC)
    return [
        Outgoing(held, coercion)
        for one in selected
        for coercion in (_coercion(one, receiver, now),)
        for held in one.instances
    ]


def _coercion(one: Selected, receiver: str, now: datetime) -> Coercion | None:
    own = (one.patient.patient_id, one.owner.issuer)
    if one.owner.issuer == receiver and (one.number.value, one.number.issuer) == own:
        return None
    return Coercion(
        patient_id=one.number.value,
        issuer=one.number.issuer,
        owner_patient_id=own[0],
        owner_issuer=own[1],
        institution=one.owner.name,
        at=now,
        system=SYSTEM,
    )


def address_of(entity: ApplicationEntity, *, calling: str, tls: ssl.SSLContext | None) -> Address:
    """Where a registered entity listens; over TLS when it is bound to a certificate."""
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
    conduct: Conduct | None = None,
) -> Iterator[Result]:
    """Send all of `wanted`, over `parallel` associations, and tell of each when it is answered.

    `originator` is the AE title and Message ID of the C-MOVE-RQ that is served. An association that
    breaks leaves the rest of its instances unanswered: each is told. Raises UpperLayerError when
    the first association is not made. A caller that stops early ends the associations.
    """
    if parallel <= 1 or len(wanted) < 2:
        yield from _over_one(address, wanted, originator, conduct)
        return
    results: queue.Queue[Result | UpperLayerError | None] = queue.Queue()
    stop = threading.Event()

    def work(share: Sequence[Outgoing]) -> None:
        try:
            for result in _over_one(address, share, originator, conduct):
                results.put(result)
                if stop.is_set():
                    break
        except UpperLayerError as error:
            results.put(error)
        finally:
            results.put(None)

    shares = [wanted[at::parallel] for at in range(min(parallel, len(wanted)))]
    threads = [threading.Thread(target=work, args=(share,), name="sending") for share in shares]
    for thread in threads:
        thread.start()
    try:
        working = len(threads)
        told: set[int] = set()
        failure: UpperLayerError | None = None
        while working:
            match results.get():
                case None:
                    working -= 1
                case Result() as result:
                    told.add(id(result.outgoing))
                    yield result
                case error:
                    failure = error
        if failure is not None:
            if not told:
                raise failure
            yield from (Result(one, None, str(failure)) for one in wanted if id(one) not in told)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def store(
    association: Association,
    message_id: int,
    offered: Sequence[tuple[int, str]],
    one: Outgoing,
    originator: tuple[str, int] | None = None,
) -> Result:
    """One C-STORE as SCU, in the best of the contexts `offered` as (id, transfer syntax).

    Raises AssociationEnded.
    """
    held = one.held
    try:
        syntax = transcoding.choose(held.transfer_syntax_uid, [uid for _, uid in offered])
        pieces = transcoding.data_set_of(held, syntax, one.coercion)
        first = next(pieces, b"")  # what cannot be made fails here, before anything is sent
    except (CannotTranscode, DataSetError, ExchangeError) as error:
        return Result(one, None, str(error))
    context_id = next(number for number, uid in offered if uid == syntax)
    command = dimse.request(
        CommandField.C_STORE_RQ,
        message_id,
        held.sop_class_uid,
        held.sop_instance_uid,
        data_set_present=True,
        move_originator=originator,
    )
    association.send(context_id, command, _from(first, pieces))
    answer = association.next_response(message_id).command
    return Result(one, answer.status, answer.error_comment)


def _from(
    first: bytes | memoryview, pieces: Iterator[bytes | memoryview]
) -> Iterator[bytes | memoryview]:
    yield first
    yield from pieces


def _over_one(
    address: Address,
    wanted: Sequence[Outgoing],
    originator: tuple[str, int] | None,
    conduct: Conduct | None,
) -> Iterator[Result]:
    done = 0
    try:
        for batch, proposals in _batches(wanted):
            with requestor.connect(address, proposals, conduct=conduct) as association:
                for one in batch:
                    result = _stored(association, one, originator)
                    done += 1
                    yield result
    except UpperLayerError as error:
        if not done:
            raise
        yield from (Result(one, None, str(error)) for one in wanted[done:])


def _stored(association: Requested, one: Outgoing, originator: tuple[str, int] | None) -> Result:
    offered = [
        (context.context_id, context.transfer_syntax)
        for context in association.contexts.values()
        if context.abstract_syntax == one.held.sop_class_uid
    ]
    if not offered:
        return Result(one, None, "the receiver does not take this SOP class")
    return store(association, association.next_message_id(), offered, one, originator)


def _batches(wanted: Sequence[Outgoing]) -> Iterator[tuple[list[Outgoing], list[Proposal]]]:
    """What fits into the contexts of one association each, and those contexts."""
    batch: list[Outgoing] = []
    proposals: dict[tuple[str, str], Proposal] = {}
    for one in wanted:
        sop_class, kept = one.held.sop_class_uid, one.held.transfer_syntax_uid
        needed = {
            (sop_class, kept): Proposal(sop_class, (kept,)),
            (sop_class, ""): Proposal(sop_class, _UNCOMPRESSED),
        }
        if len(proposals.keys() | needed.keys()) > CONTEXTS:
            yield batch, list(proposals.values())
            batch, proposals = [], {}
        batch.append(one)
        proposals |= needed
    if batch:
        yield batch, list(proposals.values())


__all__ = ["AssociationEnded", "Outgoing", "Result", "address_of", "outgoing", "send", "store"]
