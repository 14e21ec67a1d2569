"""The node: every DIMSE service of the exchange as SCP, behind one acceptor.

An association belongs to one hospital, found from the calling AE title and its address or
certificate; all that is asked in it is asked on its behalf. `SERVICES` tabulates which function
answers which operation in which presentation context; what is not in it is not accepted.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from exchange import admission, organizations
from exchange.access import Exchange
from exchange.admission import Admission, UserIdentity
from exchange.audit import Outcome
from exchange.errors import NotAuthenticated, TooManyTries, Unavailable
from exchange.policy import Action, Requester
from exchange.registry import Watch
from exchange_dicom import (
    commitment,
    contexts,
    find,
    performed,
    retrieve,
    status,
    storage,
    verification,
    worklist,
)
from exchange_dicom.association import Association, Message
from exchange_dicom.contexts import FIND_LEVELS, FIND_OF, VERIFICATION
from exchange_dicom.conversation import Conversation, Limits, Observed, Service
from exchange_dicom.desk import Desk, Handed, WayToDesk
from exchange_dicom.dimse import CommandField
from exchange_dicom.identity import Verify, claimed, told, unverifiable
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import Accepted, Conduct, Peer, TransferSyntaxes, select_contexts
from exchange_dicom.pace import Pace
from exchange_dicom.pdu import (
    AbortSource,
    AssociateReject,
    AssociateRequest,
    RejectReason,
    RoleSelection,
)
from exchange_dicom.states import NotRegistered
from exchange_dicom.transport_security import Contexts

log = logging.getLogger(__name__)

SERVICES: Mapping[str, Mapping[CommandField, Service]] = {
    VERIFICATION: {CommandField.C_ECHO_RQ: verification.echo},
    contexts.MODALITY_WORKLIST_FIND: {CommandField.C_FIND_RQ: worklist.find},
    contexts.PERFORMED_PROCEDURE_STEP: {
        CommandField.N_CREATE_RQ: performed.create,
        CommandField.N_SET_RQ: performed.change,
    },
    contexts.PERFORMED_PROCEDURE_STEP_RETRIEVE: {CommandField.N_GET_RQ: performed.read},
    contexts.STORAGE_COMMITMENT_PUSH: {
        CommandField.N_ACTION_RQ: commitment.request,
        CommandField.N_EVENT_REPORT_RSP: commitment.confirmed,
    },
    **{model: {CommandField.C_FIND_RQ: find.find} for model in FIND_LEVELS},
    **{
        model: {CommandField.C_MOVE_RQ: retrieve.move}
        for model in (contexts.PATIENT_ROOT_MOVE, contexts.STUDY_ROOT_MOVE)
    },
    **{
        model: {CommandField.C_GET_RQ: retrieve.get}
        for model in (contexts.PATIENT_ROOT_GET, contexts.STUDY_ROOT_GET)
    },
}
"""By abstract syntax and operation; any other abstract syntax is a storage SOP class."""

EXTENDED: Mapping[str, int] = {
    **dict.fromkeys(FIND_LEVELS, 3),
    **dict.fromkeys(FIND_OF, 1),
    contexts.MODALITY_WORKLIST_FIND: 3,
}
"""How many of the extended behaviours are served, the first ones (PS3.4 C.5.1.1, K.5.1): relational
queries, combined date-time, fuzzy names; of a worklist the first two are reserved and always 1.
Times are matched as they were sent, whatever their zone."""

NOBODY = "unknown"
"""What the trail calls who has not come to say an AE title."""

REPORT_SECONDS = 300.0
"""Silence for which an association is kept whose asker still waits for a commitment report; then
the silence between two messages begins to count."""

ROUND_SECONDS = 2.0
"""How often somebody looks whether the peers of idle associations are still registered."""

STORAGE: Mapping[CommandField, Service] = {CommandField.C_STORE_RQ: storage.store}


_N_SERVICES = frozenset(
    {
        CommandField.N_CREATE_RQ,
        CommandField.N_SET_RQ,
        CommandField.N_GET_RQ,
        CommandField.N_ACTION_RQ,
    }
)
_OF_A_STEP = {contexts.PERFORMED_PROCEDURE_STEP, contexts.PERFORMED_PROCEDURE_STEP_RETRIEVE}

_ECHO = CommandField.C_ECHO_RQ
_ASKED = frozenset({CommandField.C_FIND_RQ, CommandField.C_MOVE_RQ, CommandField.C_GET_RQ})
"""What the desk answers, if there is one."""


def node(
    exchange: Exchange,
    *,
    ae_title: str,
    addresses: Sequence[tuple[str, int]],
    conduct: Conduct | None = None,
    tls: Contexts | None = None,
    client_tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    share_port: bool = False,
    verify: Verify = unverifiable,
    observed: Observed = lambda _, __: None,
    way_to_desk: WayToDesk | None = None,
) -> Acceptor:
    """The DICOM door: an acceptor that serves `exchange` under `ae_title` (not started yet).

    `verify` says who the user is whom an association names; `observed` is told of each operation
    that was answered. Associations that only ask are answered by the desk, if there is a way to it.
    """
    bounds = limits or Limits()
    premises = _Premises(exchange, ae_title, bounds, client_tls, observed, verify, way_to_desk)

    def refused(peer: Peer, reason: str) -> None:
        with suppress(Unavailable):
            organizations.refused(exchange, NOBODY, str(peer.address), reason)

    return Acceptor(
        addresses,
        lambda association: premises.enter(association, _Door.serve),
        conduct=conduct,
        tls=tls,
        maximum_associations=bounds.associations,
        share_port=share_port,
        refused=refused,
        rounds=premises.look_in,
        round_seconds=ROUND_SECONDS,
    )


def desk(
    exchange: Exchange,
    directory: Path,
    *,
    ae_title: str,
    conduct: Conduct | None = None,
    client_tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    observed: Observed = lambda _, __: None,
) -> Desk:
    """The desk beside a node, with its socket in `directory` (not started yet). Raises OSError."""
    bounds = limits or Limits()
    premises = _Premises(exchange, ae_title, bounds, client_tls, observed)
    return Desk(
        directory,
        lambda association, handed: premises.enter(association, lambda door: door.go_on(handed)),
        conduct=conduct,
        maximum_associations=bounds.associations,
        rounds=premises.look_in,
        round_seconds=ROUND_SECONDS,
    )


class _Premises:
    """What the associations of one acceptor have in common."""

    def __init__(
        self,
        exchange: Exchange,
        ae_title: str,
        limits: Limits,
        client_tls: ssl.SSLContext | None,
        observed: Observed,
        verify: Verify = unverifiable,
        way_to_desk: WayToDesk | None = None,
    ) -> None:
        self.exchange = exchange
        self.ae_title = ae_title
        self.limits = limits
        self.client_tls = client_tls
        self.observed = observed
        self.verify = verify
        self.way_to_desk = way_to_desk
        self.pace = Pace()
        self.watch = Watch(exchange)
        self._doors: set[_Door] = set()

    def enter(self, association: Association, serve: Callable[[_Door], None]) -> None:
        door = _Door(self, association)
        self._doors.add(door)
        try:
            serve(door)
        finally:
            self._doors.discard(door)

    def look_in(self) -> None:
        for door in self._doors.copy():  # at once, for associations come and go
            door.look_in()


class _Door:
    """One association, from its request to its end."""

    def __init__(self, premises: _Premises, association: Association) -> None:
        self._premises = premises
        self._exchange = premises.exchange
        self._association = association
        self._looked_up = premises.watch.revision()
        self._looking = threading.Lock()
        self._conversation: Conversation | None = None
        self._ended: NotRegistered | None = None
        self._own = Admission()
        self._entered: int | None = None
        self._requester: Requester | None = None
        self._extended: Mapping[str, bytes] = {}

    def serve(self) -> None:
        try:
            if self._association.negotiate(self._decide) and self._requester is not None:
                conversation = self._begin(self._requester)
                if not self._handed_over(conversation):
                    self._converse(conversation)
        finally:
            if self._entered is not None:
                self._premises.pace.leave(self._entered, self._association)

    def go_on(self, handed: Handed) -> None:
        """Serve what a node has negotiated, which holds its place among those of its hospital."""
        self._looked_up = handed.revision
        self._own = handed.admission
        self._entered = handed.requester.organization
        self._extended = handed.accepted.extended
        self._converse(self._begin(handed.requester))

    def _handed_over(self, conversation: Conversation) -> bool:
        """Whether the desk has served it, to its end."""
        association, way = self._association, self._premises.way_to_desk
        request, accepted = association.request, association.accepted
        if way is None or request is None or accepted is None or not _only_asks(association):
            return False
        if association.secured or not association.message_comes():
            return False
        handed = Handed(
            peer=association.peer,
            request=replace(request, user=replace(request.user, identity=None)),  # it has secrets
            accepted=accepted,
            requester=conversation.requester,
            admission=self._own,
            revision=self._looked_up,
        )
        self._conversation = None  # the desk looks itself whether the peer is still registered
        if way.hand_over(association, handed):
            return True
        self._conversation = conversation
        return False

    def _begin(self, requester: Requester) -> Conversation:
        premises = self._premises
        conversation = Conversation(
            exchange=self._exchange,
            association=self._association,
            ae_title=premises.ae_title,
            limits=premises.limits,
            requester=requester,
            extended=self._extended,
            client_tls=premises.client_tls,
            pace=self._pause,
            confirm=self._confirm,
            observed=premises.observed,
        )
        self._conversation = conversation
        return conversation

    def _converse(self, conversation: Conversation) -> None:
        for message in self._association.messages():
            conversation.confirm()
            field = message.command.command_field
            service = SERVICES.get(message.context.abstract_syntax, STORAGE).get(field)
            if service is not None and (refusal := _of_another_class(message)) is not None:
                conversation.answer(message, refusal, "the SOP class is not that of the context")
            elif service is not None:
                service(conversation, message)
            elif not field.is_response:
                conversation.answer(message, status.UNRECOGNIZED_OPERATION)
            commitment.while_silent(conversation, REPORT_SECONDS)

    def _confirm(self) -> None:
        if (gone := self._gone()) is not None:
            self._association.abort(AbortSource.SERVICE_PROVIDER)
            raise gone

    def look_in(self) -> None:
        """From another thread: end the association if it is idle, and its peer not registered any
        more. One that is not idle looks itself, at its next message."""
        if self._association.idle and (gone := self._gone()) is not None:
            self._association.dismiss(gone)

    def _gone(self) -> NotRegistered | None:
        """What ends the association, where the peer is not registered any more. Looked up once for
        each revision of the registry."""
        conversation, revision = self._conversation, self._premises.watch.revision()
        if conversation is None or revision == self._looked_up:
            return None
        # While the index does not answer nothing is served either, and it is looked up next time.
        with self._looking, suppress(Unavailable):
            if self._ended is None and revision != self._looked_up:
                shown = _fingerprint(self._association.peer)
                found = admission.again(self._exchange, conversation.requester, shown)
                if found is None:
                    self._ended = NotRegistered("the peer is not registered any more")
                else:
                    conversation.requester = found
                    self._looked_up = revision
        return self._ended

    def _decide(self, request: AssociateRequest, peer: Peer) -> Accepted | AssociateReject:
        shown = _fingerprint(peer)
        try:
            if request.called_ae != self._premises.ae_title:
                reason = "called AE title not recognized"
                organizations.refused(self._exchange, request.calling_ae, str(peer.address), reason)
                return AssociateReject(RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED)
            self._requester = organizations.caller(
                self._exchange, request.calling_ae, str(peer.address), shown
            )
            if self._requester is not None:
                self._own = admission.of(self._exchange, self._requester)
        except Unavailable:
            return AssociateReject(RejectReason.TEMPORARY_CONGESTION, transient=True)
        if self._requester is None or (hospital := self._requester.organization) is None:
            return AssociateReject(RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED)
        if not self._premises.pace.enter(
            hospital, self._own.limits.associations, self._association
        ):
            return AssociateReject(RejectReason.LOCAL_LIMIT_EXCEEDED, transient=True)
        self._entered = hospital
        if (refusal := self._identify(request, self._requester)) is not None:
            return refusal
        self._extended = {
            uid: bytes(one == 1 and at < EXTENDED[uid] for at, one in enumerate(wanted))
            for uid, wanted in request.user.extended.items()
            if uid in EXTENDED and wanted
        }
        received = {role.sop_class for role in request.user.roles if role.scp}
        return Accepted(
            contexts=select_contexts(
                request.contexts, lambda uid: _supported(uid, received=uid in received)
            ),
            identity_response=(
                b""
                if request.user.identity is not None and request.user.identity.response_requested
                else None
            ),
            roles=tuple(
                # Whoever wants to receive on this association may, and may go on to send.
                RoleSelection(role.sop_class, role.scu, role.scp)
                for role in request.user.roles
                if role.sop_class not in SERVICES and contexts.stored(role.sop_class)
            ),
            extended=self._extended,
        )

    def _identify(self, request: AssociateRequest, requester: Requester) -> AssociateReject | None:
        """Who the user is, as far as their hospital wants it told or proved (D.3.3.7)."""
        identity, rule = request.user.identity, self._own.user_identity
        if rule is UserIdentity.OFF:
            return None
        if identity is not None:
            log.info("association of %s: %s", request.calling_ae, told(identity))
        if rule is UserIdentity.LOG:
            if identity is not None:
                self._requester = replace(requester, person=claimed(identity))
            return None
        try:
            if identity is None:
                raise NotAuthenticated("the association names no user")
            person = self._premises.verify(identity, requester)
            self._requester = known = replace(requester, person=person)
            with self._exchange.on_behalf_of(known) as access:
                access.note(Action.AUTHENTICATE, reason="user identity verified")
        except NotAuthenticated as error:
            self._requester = None
            with suppress(Unavailable), self._exchange.on_behalf_of(requester) as access:
                access.note(
                    Action.AUTHENTICATE,
                    outcome=Outcome.REFUSED,
                    reason=f"user identity: {error}",
                )
            # After too many wrong ones the right one is not looked at for a while.
            later = isinstance(error, TooManyTries)
            return AssociateReject(RejectReason.NO_REASON_GIVEN, transient=later)
        except Unavailable:
            self._requester = None
            return AssociateReject(RejectReason.TEMPORARY_CONGESTION, transient=True)
        return None

    def _pause(self) -> float:
        return self._premises.pace.pause(self._entered or 0, self._own.limits.rate)


def _only_asks(association: Association) -> bool:
    """Whether what was agreed on is to ask, and to receive what was asked for."""
    roles = association.accepted.roles if association.accepted is not None else ()
    received = {role.sop_class for role in roles if role.scp}
    models = {context.abstract_syntax for context in association.contexts.values()} - received
    operations = {one for uid in models for one in SERVICES.get(uid, STORAGE)} - {_ECHO}
    return bool(operations) and operations <= _ASKED


def _of_another_class(message: Message) -> int | None:
    """The status of an N-service whose command names another SOP class than the one negotiated for
    its context (PS3.7 annex C.5). A step is read as of either of its classes (PS3.4 F.8)."""
    field, meant = message.command.command_field, message.context.abstract_syntax
    named = message.command.sop_class
    if field not in _N_SERVICES or named in {"", meant} or {named, meant} == _OF_A_STEP:
        return None
    made = field is CommandField.N_CREATE_RQ
    return status.NO_SUCH_SOP_CLASS if made else status.CLASS_INSTANCE_CONFLICT


def _fingerprint(peer: Peer) -> str:
    """Of the certificate that the other end has shown, as it is registered; "" for none."""
    return hashlib.sha256(peer.certificate).hexdigest() if peer.certificate else ""


def _supported(abstract_syntax: str, *, received: bool) -> TransferSyntaxes | None:
    if abstract_syntax in SERVICES:
        return TransferSyntaxes(contexts.UNCOMPRESSED)
    return contexts.stored(abstract_syntax, received=received)
