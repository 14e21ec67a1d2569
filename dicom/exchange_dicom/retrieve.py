"""The retrieval half of the Query/Retrieve service class as SCP: C-MOVE and C-GET (PS3.4 C.4.2, 3).

Both mean by a patient number the asking hospital's own, and give every instance of that person that
it may see, under that number. All is decided and recorded before the first instance leaves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from exchange import organizations, retrieval
from exchange.access import Access
from exchange.errors import ExchangeError, Invalid, Refused, TooLarge, Unavailable
from exchange.retrieval import Tally
from exchange_dicom import attributes, dimse, sending, status
from exchange_dicom.association import Message
from exchange_dicom.association import TooLarge as TooLong
from exchange_dicom.contexts import RETRIEVE_LEVELS, RETRIEVED_BEYOND
from exchange_dicom.conversation import Conversation
from exchange_dicom.dimse import SubOperations
from exchange_dicom.header import DataSetError
from exchange_dicom.identifier import IDENTIFIER_LENGTH, UNIQUE, Identifier
from exchange_dicom.pdu import UpperLayerError
from exchange_dicom.query import question
from exchange_dicom.sending import Line, Outgoing, Result
from exchange_dicom.states import AssociationEnded, AssociationLost
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.records import ApplicationEntity, Organization
from exchange_storage.search import Level

DECIDED_SECONDS = 2.0
"""For so long a decision holds while instances are on their way."""

_FAILED_LENGTH = 0xFFFE
"""Bytes of the longest Failed SOP Instance UID List: its VR has a 16-bit length."""


def move(conversation: Conversation, message: Message) -> None:
    """C-MOVE: to a node of the asking hospital's own."""
    title = message.command.move_destination
    chosen = _chosen(conversation, message, title)
    if chosen is None:
        return
    if chosen.destination is None:
        conversation.answer(
            message, status.DESTINATION_UNKNOWN, "not a node of the asking hospital's"
        )
        return
    progress = _Progress(conversation, message, chosen, title)
    originator = (conversation.association.request.calling_ae, message.command.message_id)  # type: ignore[union-attr]
    address = sending.address_of(
        chosen.destination, calling=conversation.ae_title, tls=conversation.client_tls
    )
    stop = threading.Event()
    with progress.recorded():
        try:
            with closing(
                sending.send(
                    address,
                    chosen.wanted,
                    originator=originator,
                    parallel=conversation.limits.move_associations,
                    stop=stop,
                )
            ) as results:
                if not progress.follow(results, stop):
                    return
        except UpperLayerError as error:
            if isinstance(error, AssociationEnded) and not conversation.association.established:
                raise
            progress.lost(str(error))
        progress.end()


def get(conversation: Conversation, message: Message) -> None:
    """C-GET: over the association on which it was asked for."""
    chosen = _chosen(conversation, message)
    if chosen is None:
        return
    progress = _Progress(conversation, message, chosen, same_association=True)
    stop = threading.Event()
    with progress.recorded():
        if progress.follow(_sub_operations(conversation, chosen.wanted, stop), stop):
            progress.end()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What was asked for, as its asker may have it; and where a C-MOVE sends it."""

    wanted: list[Outgoing]
    destination: ApplicationEntity | None = None
    patients: Mapping[str, int] = field(default_factory=dict)
    """Whose each study is: row numbers by Study Instance UID."""


def _chosen(
    conversation: Conversation, message: Message, destination: str | None = None
) -> _Chosen | None:
    """None when the request has been answered, with why it is not served."""
    model = message.context.abstract_syntax
    if message.data is None:
        conversation.answer(message, status.DIMSE[Invalid].retrieve, "the identifier is missing")
        return None
    relational = conversation.extended.get(model, b"")[:1] == b"\1"
    try:
        raw = message.data.read(IDENTIFIER_LENGTH)
        identifier = Identifier.read(raw, message.context.transfer_syntax)
        level = identifier.level(
            RETRIEVE_LEVELS[model],
            relational=relational,
            beyond=RETRIEVED_BEYOND.get(model, ()),
        )
        keys = _unique(identifier, level)
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            entity = organizations.destination(access, destination) if destination else None
            if destination is not None and entity is None:
                study = dict(keys).get("StudyInstanceUID", "")
                retrieval.astray(access, study, to=destination, asked=raw)
                return _Chosen([])
            selected = retrieval.select_instances(
                access,
                level,
                question(access, level, keys).criteria,
                limit=conversation.limits.matches,
                purpose=f"images, to {destination}" if destination else "images",
                asked=raw,
            )
            asker = _organization(access)
        return _Chosen(
            sending.outgoing(selected, asker.issuer),
            entity,
            {one.study.study_instance_uid: one.patient.id for one in selected},
        )
    except TooLong:
        conversation.answer(message, status.DIMSE[TooLarge].retrieve, "the identifier is too long")
    except ExchangeError as error:
        conversation.answer(message, status.DIMSE[type(error)].retrieve, str(error))
    return None


def _organization(access: Access) -> Organization:
    return access.session.get_one(Organization, access.organization)


def _unique(identifier: Identifier, level: Level) -> list[tuple[str, str]]:
    """The keys that select: the unique ones (C.4.2.2.1). Raises Invalid for any other with a value.

    To pass over what narrows a retrieval would send what nobody asked for.
    """
    allowed = {UNIQUE[at] for at in Level if at <= level} | {"IssuerOfPatientID"}
    keys = [(keyword, value) for keyword, value in identifier.keys if value.strip()]
    for keyword, _ in keys:
        if keyword not in allowed:
            raise Invalid(f"{keyword} is not a unique key of the level or above")
    given = dict(keys)
    wanted = given.get(UNIQUE[level], "")
    if not wanted or set(wanted) & set("*?"):
        raise Invalid(f"{UNIQUE[level]} must be given")
    for keyword in ("PatientID", "IssuerOfPatientID"):
        if "\\" in given.get(keyword, ""):  # which have one value; UIDs may be a list (C.2.2.2.2)
            raise Invalid(f"{keyword} must be given as a single value")
    return keys


def _sub_operations(
    conversation: Conversation, wanted: Sequence[Outgoing], stop: threading.Event
) -> Iterator[Result]:
    association = conversation.association
    accepted = association.accepted
    granted = {role.sop_class for role in accepted.roles if role.scp} if accepted else set()

    def offered(sop_class: str) -> Sequence[tuple[int, str]]:
        return association.offered(sop_class) if sop_class in granted else ()

    line = Line(
        association,
        iter(wanted),
        offered,
        not_offered="no presentation context in which the asker is an SCP",
    )
    try:
        yield from line.results(stop)
    except (CannotTranscode, DataSetError, ExchangeError) as error:
        raise AssociationLost(f"an instance could not be read to its end: {error}") from error


@dataclass(slots=True)
class _Progress:
    """The responses of one retrieval: pending ones with counts, and the final one."""

    conversation: Conversation
    message: Message
    chosen: _Chosen
    to: str = ""
    same_association: bool = False
    """Whether the instances leave over the asker's association: then responses go with them."""
    completed: int = 0
    warned: int = 0
    failed: list[str] = field(default_factory=list)
    reason: str = ""
    _told: set[int] = field(default_factory=set)
    """Which of `wanted`, by `id`, have a result: they come in any order, and keys may repeat."""
    _tallies: dict[str, Tally] = field(default_factory=dict)
    """By Study Instance UID; whatever is still to come is `unsent`."""
    _why: str = ""
    """The reason for the audit trail: in our words, since a receiver's could name the patient."""
    _ended: bool = False
    _decided: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for one in self.wanted:
            study = one.held.study_instance_uid
            patient = self.chosen.patients[study]
            tally = self._tallies.setdefault(
                study, Tally(study_instance_uid=study, patient=patient)
            )
            tally.unsent += 1

    @property
    def wanted(self) -> Sequence[Outgoing]:
        """All sub-operations."""
        return self.chosen.wanted

    @property
    def remaining(self) -> int:
        """Sub-operations without a result."""
        return len(self.wanted) - len(self._told)

    def follow(self, results: Iterator[Result], stop: threading.Event) -> bool:
        """Tell of each result; False once the asker has cancelled, or may not have the rest any
        more, and was told so.

        Looked for before each sub-operation, the first one too; those that are under way by then
        are waited for, and counted. Raises AssociationEnded, also where the asker is not registered
        any more.
        """
        association = self.conversation.association
        number = self.message.command.message_id
        while self.remaining:
            if association.cancelled(number):
                stop.set()
                for begun in results:
                    self._count(begun)
                self._why = "called off by the asker"
                self._finish(status.CANCEL, remaining=self.remaining)
                return False
            if (refusal := self._refused()) is not None:
                stop.set()
                for begun in results:
                    self._count(begun)
                self.lost(str(refusal))
                self._finish(status.DIMSE[Refused].retrieve)
                return False
            result = next(results, None)
            if result is None:
                break
            self._count(result)
            if self.remaining:
                self._send(status.PENDING, remaining=self.remaining, more=self.same_association)
        return True

    def _refused(self) -> Refused | None:
        """Why the asker may not have what remains, though it was permitted when it was chosen."""
        now = time.monotonic()
        if now - self._decided < DECIDED_SECONDS:
            return None
        conversation = self.conversation
        conversation.confirm()
        rest = {study for study, tally in self._tallies.items() if tally.unsent}
        patients = {study: one for study, one in self.chosen.patients.items() if study in rest}
        try:
            with conversation.exchange.on_behalf_of(conversation.requester) as access:
                retrieval.decide_again(access, patients)
        except Refused as refusal:
            return refusal
        except Unavailable:
            pass  # what was decided holds until it can be decided again
        self._decided = now
        return None

    def lost(self, reason: str) -> None:
        """None of what remains can be sent."""
        for one in [one for one in self.wanted if id(one) not in self._told]:
            self._count(Result(one, None, reason))

    def end(self) -> None:
        """The final response. What has no result by now has failed."""
        if self.remaining:
            self.lost("not sent")
        if not self.failed and not self.warned:
            self._finish(status.SUCCESS)
        elif self.completed or self.warned:
            self._finish(status.SUB_OPERATIONS_FAILED)
        else:
            self._finish(status.CANNOT_PERFORM_SUB_OPERATIONS)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """However it ends inside, the audit trail tells what was sent until then."""
        try:
            yield
        except BaseException:
            if not self._ended:
                self._why = "the asker, or the exchange, broke it off"
                with suppress(ExchangeError):  # which is not why it ends
                    self._record()
            raise

    def _finish(self, code: int, *, remaining: int | None = None) -> None:
        try:
            self._record()
        except ExchangeError as error:  # no answer says more than the audit trail
            code, self.reason = status.DIMSE[type(error)].retrieve, str(error)
        self._send(code, remaining=remaining)

    def _record(self) -> None:
        self._ended = True
        conversation = self.conversation
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            retrieval.sent(access, [*self._tallies.values()], to=self.to, reason=self._why)

    def _count(self, result: Result) -> None:
        held = result.outgoing.held
        self._told.add(id(result.outgoing))
        tally = self._tallies[held.study_instance_uid]
        tally.unsent -= 1
        if result.warned:
            self.warned += 1
            tally.warned += 1
        elif result.stored:
            self.completed += 1
            tally.completed += 1
        else:
            self.failed.append(held.sop_instance_uid)
            tally.failed += 1
            self.reason = result.reason
            told = result.status
            self._why = result.reason if told is None else f"answered with status {told:04X}"

    def _send(self, code: int, *, remaining: int | None = None, more: bool = False) -> None:
        context = self.message.context
        if code != status.PENDING:
            self.conversation.answered(self.message, code, self.reason)
        # Each final response but success names what failed, if only that nothing did (C.4.2.1.4).
        listed = code not in {status.PENDING, status.SUCCESS}
        response = dimse.response(
            self.message.command,
            code,
            data_set_present=listed,
            error_comment=self.reason if listed else "",
            sub_operations=SubOperations(remaining, self.completed, len(self.failed), self.warned),
        )
        body = None
        if listed:
            uids, length = [], 0
            for uid in self.failed:
                length += len(uid) + 1
                if length > _FAILED_LENGTH:
                    break
                uids.append(uid)
            explicit = context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
            body = attributes.encode({"FailedSOPInstanceUIDList": uids}, explicit=explicit)
        self.conversation.association.send(context.context_id, response, body, more=more)
