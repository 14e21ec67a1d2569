"""The acceptor's part of the state table, PS3.8 section 9.2, and the ways an association ends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from exchange_dicom.pdu import UpperLayerError


class State(Enum):
    """States of the acceptor (PS3.8 Table 9-10), without those that only a requestor is in."""

    STA2 = "transport connection open, awaiting A-ASSOCIATE-RQ"
    STA3 = "awaiting the local A-ASSOCIATE response"
    STA6 = "association established and ready for data transfer"
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
    """What the acceptor does about it (PS3.8 Tables 9-6 to 9-9)."""

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
    (State.STA6, Event.A_ASSOCIATE_RQ): Action.AA_8,
    (State.STA6, Event.A_ASSOCIATE_AC): Action.AA_8,
    (State.STA6, Event.A_ASSOCIATE_RJ): Action.AA_8,
    (State.STA6, Event.P_DATA_TF): Action.DT_2,
    (State.STA6, Event.A_RELEASE_RQ): Action.AR_2,
    (State.STA6, Event.A_RELEASE_RP): Action.AA_8,
    (State.STA6, Event.A_ABORT): Action.AA_3,
    (State.STA6, Event.TRANSPORT_CLOSED): Action.AA_4,
    (State.STA6, Event.INVALID_PDU): Action.AA_8,
}
"""PS3.8 Table 9-10 for the states in which an acceptor listens to PDUs.

Sta3 and Sta8 it leaves without reading. In Sta13 it has closed its half of the connection, so that
all it can do with a PDU is AA-6, to ignore it, until the peer closes or ARTIM runs out.
"""


class AssociationEnded(UpperLayerError):
    """The association is over; whoever was in the middle of a message discards what was staged."""


class AssociationLost(AssociationEnded):
    """The connection closed or broke without a release."""


class AssociationAborted(AssociationEnded):
    """The peer sent A-ABORT."""


class AssociationStopped(AssociationEnded):
    """We aborted because we are shutting down and no message was under way."""


class ProtocolViolation(AssociationEnded):
    """We aborted because the peer sent what PS3.8 or PS3.7 does not allow."""


class TimedOut(AssociationEnded):
    """We aborted because the peer took too long."""
