"""pynetdicom without the race in which it loses an answer that we have given.

Who sends with it has its thread for the association pause, and takes the answer himself: he clears
`_reactor_checkpoint`, and waits until `_is_paused`. The thread says that it is paused before it
waits there, and takes it back after: between the two it may already have been let through, with
`_is_paused` still true. Then it takes the answer, as a "C-STORE service message" that it did not
expect, and whoever sent waits until he gives up. Here to be let through and to be no longer paused
are one step. (pynetdicom 3.0.4, `Association._run_reactor` and `send_c_store`.)

And who serves a report, in a third thread, says at its end that the association is not paused, also
where that is: whoever then waits until it is would wait for ever. So it is said again, for as long
as it is. (`Association._serve_request`.)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pynetdicom.association import Association

REPEATED = 0.05
"""Seconds after which it is said again that an association is paused."""


class Checkpoint:
    """Where an association's thread waits while somebody sends; in place of an Event."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._open = True
        self._changed = threading.Condition()

    def set(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._open = False

    def wait(self) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: self._open, REPEATED):
                self._association._is_paused = True
            self._association._is_paused = False


@contextmanager
def pausing_in_one_step() -> Iterator[None]:
    """All associations of pynetdicom that are made meanwhile."""
    made = Association.__init__

    def make(self: Association, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **more)
        self._reactor_checkpoint = Checkpoint(self)  # type: ignore[assignment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Association, "__init__", make)
        yield
