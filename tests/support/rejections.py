"""What a peer was told when it was rejected, as it came over the connection.

pynetdicom's own word on it, `is_rejected`, is not to be relied on: where the connection is closed
again before its thread for the association has looked, that takes it for one that never opened,
and says that the association was aborted.
"""

from __future__ import annotations

from typing import Any

from pynetdicom import evt
from pynetdicom.pdu import A_ASSOCIATE_RJ


class Rejections:
    """The A-ASSOCIATE-RJ PDUs that associations of pynetdicom receive."""

    def __init__(self) -> None:
        self._came: list[A_ASSOCIATE_RJ] = []

    @property
    def handlers(self) -> list[Any]:
        """For `AE.associate`."""
        return [(evt.EVT_PDU_RECV, self._hear)]

    def last(self) -> tuple[int | None, int | None, int | None]:
        """Result, source and reason of the last (PS3.8 Table 9-21). Raises IndexError."""
        told = self._came[-1]
        return told.result, told.source, told.reason_diagnostic

    def _hear(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self._came.append(event.pdu)
