"""The state table of both ends, PS3.8 section 9.2, and the ways an association ends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from exchange_dicom.pdu import AssociateReject, RejectReason, UpperLayerError


class State(Enum):
    """States of an association (PS3.8 Table 9-10), without those that last no time at all here."""

    STA2 = "transport connection open, awaiting A-ASSOCIATE-RQ"
    STA3 = "awaiting the local A-ASSOCIATE response"
    STA5 = "awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ"
    STA6 = "association established and ready for data transfer"
    STA7 = "awaiting A-RELEASE-RP"
    STA8 = "awaiting the local A-RELEASE response"
    STA13 = "awaiting transport connection close"


class Event(Enum):
    """What can come out of the transport connection, by its number in PS3.8 Table 9-10."""

    A_ASSOCIATE_AC = 3
    A_ASSOCIATE_RJ = 4
    A_ASSOCIATE_RQ = 6
    P_DATA_TF = 10
    A_RELEASE_RQ = 12
    A_RELEASE_RP = 13
    A_ABORT = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Action(Enum):
    """What is done about it (PS3.8 Tables 9-6 to 9-9)."""

    AE_3 = "confirm the association"
    AE_4 = "confirm the rejection, close the transport connection"
    AR_3 = "confirm release, close the transport connection"
    AR_6 = "indicate data, while a release is awaited"
    AR_8 = "indicate release: both ends asked at once"

    AE_6 = "examine the request: indicate it, or reject it"
    DT_2 = "indicate data"
    AR_2 = "indicate release"
    AA_1 = "send A-ABORT as service-user"
    AA_2 = "close the transport connection"
    AA_3 = "indicate abort, close the transport connection"
    AA_4 = "indicate provider abort"
    AA_5 = "stop ARTIM"
    AA_8 = "send A-ABORT as service-provider, indicate provider abort"


TRANSITIONS: Mapping[tuple[State, Event], Action] = {
    (State.STA2, Event.A_ASSOCIATE_RQ): Action.AE_6,
    (State.STA2, Event.A_ASSOCIATE_AC): Action.AA_1,
    (State.STA2, Event.A_ASSOCIATE_RJ): Action.AA_1,
    (State.STA2, Event.P_DATA_TF): Action.AA_1,
    (State.STA2, Event.A_RELEASE_RQ): Action.AA_1,
    (State.STA2, Event.A_RELEASE_RP): Action.AA_1,
    (State.STA2, Event.A_ABORT): Action.AA_2,
    (State.STA2, Event.TRANSPORT_CLOSED): Action.AA_5,
    (State.STA2, Event.ARTIM_EXPIRED): Action.AA_2,
    (State.STA2, Event.INVALID_PDU): Action.AA_1,
    (State.STA5, Event.A_ASSOCIATE_AC): Action.AE_3,
    (State.STA5, Event.A_ASSOCIATE_RJ): Action.AE_4,
    (State.STA5, Event.A_ASSOCIATE_RQ): Action.AA_8,
    (State.STA5, Event.P_DATA_TF): Action.AA_8,
    (State.STA5, Event.A_RELEASE_RQ): Action.AA_8,
    (State.STA5, Event.A_RELEASE_RP): Action.AA_8,
    (State.STA5, Event.A_ABORT): Action.AA_3,
    (State.STA5, Event.TRANSPORT_CLOSED): Action.AA_4,
    (State.STA5, Event.INVALID_PDU): Action.AA_8,
    (State.STA6, Event.A_ASSOCIATE_RQ): Action.AA_8,
    (State.STA6, Event.A_ASSOCIATE_AC): Action.AA_8,
    (State.STA6, Event.A_ASSOCIATE_RJ): Action.AA_8,
    (State.STA6, Event.P_DATA_TF): Action.DT_2,
    (State.STA6, Event.A_RELEASE_RQ): Action.AR_2,
    (State.STA6, Event.A_RELEASE_RP): Action.AA_8,
    (State.STA6, Event.A_ABORT): Action.AA_3,
    (State.STA6, Event.TRANSPORT_CLOSED): Action.AA_4,
    (State.STA6, Event.INVALID_PDU): Action.AA_8,
    (State.STA7, Event.A_ASSOCIATE_AC): Action.AA_8,
    (State.STA7, Event.A_ASSOCIATE_RJ): Action.AA_8,
    (State.STA7, Event.A_ASSOCIATE_RQ): Action.AA_8,
    (State.STA7, Event.P_DATA_TF): Action.AR_6,
    (State.STA7, Event.A_RELEASE_RQ): Action.AR_8,
    (State.STA7, Event.A_RELEASE_RP): Action.AR_3,
    (State.STA7, Event.A_ABORT): Action.AA_3,
    (State.STA7, Event.TRANSPORT_CLOSED): Action.AA_4,
    (State.STA7, Event.INVALID_PDU): Action.AA_8,
}
"""PS3.8 Table 9-10 for the states in which somebody listens to PDUs: Sta2 of the acceptor, Sta5 and
Sta7 of the requestor, Sta6 of both. After a collision of releases (AR-8) the requestor answers at
once, Sta9, and goes on waiting for its own answer, Sta11, which is Sta7 by another name.

Sta3 and Sta8 are left without reading. In Sta13 an end has closed its half of the connection, so
that all it can do with a PDU is AA-6, to ignore it, until the peer closes or ARTIM runs out.
"""


REJECT_SOURCES: Mapping[int, str] = {
    1: "service-user",
    2: "service-provider (ACSE)",
    3: "service-provider (Presentation)",
}
REJECT_REASONS: Mapping[RejectReason, str] = {
    RejectReason.NO_REASON_GIVEN: "no reason given",
    RejectReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: "application context name not supported",
    RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED: (
        "calling AE title not recognized; ours has to be registered there"
    ),
    RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED: (
        "called AE title not recognized; the node has another than it was called by"
    ),
    RejectReason.ACSE_NO_REASON_GIVEN: "no reason given",
    RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED: "protocol version not supported",
    RejectReason.TEMPORARY_CONGESTION: "temporary congestion",
    RejectReason.LOCAL_LIMIT_EXCEEDED: "local limit exceeded",
}
"""Source and reason of an A-ASSOCIATE-RJ in words (PS3.8 Table 9-21)."""


class AssociationEnded(UpperLayerError):
    """The association is over; whoever was in the middle of a message discards what was staged."""


class AssociationLost(AssociationEnded):
    """The connection closed or broke without a release."""


class AssociationRejected(AssociationEnded):
    """The peer answered our request with A-ASSOCIATE-RJ."""

    def __init__(self, told: AssociateReject) -> None:
        """`told` is what the peer sent."""
        result = "transient" if told.transient else "permanent"
        source = REJECT_SOURCES[told.reason.value[0]]
        super().__init__(
            f"the node rejected the association ({result}, by its {source}): "
            f"{REJECT_REASONS[told.reason]}"
        )
        self.told = told


class AssociationAborted(AssociationEnded):
    """The peer sent A-ABORT."""


class AssociationStopped(AssociationEnded):
    """We aborted because we are shutting down and no message was under way."""


class NotRegistered(AssociationEnded):
    """We aborted because the peer is not registered any more, as it was when it called."""


class ProtocolViolation(AssociationEnded):
    """We aborted because the peer sent what PS3.8 or PS3.7 does not allow."""


class TimedOut(AssociationEnded):
    """We aborted because the peer took too long."""
