"""Applications on free ports of the loopback, in the tests' own process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def hosted(application: Any, listening: socket.socket | None = None, **how: Any) -> Iterator[int]:
    """Its port; it ends with the block, whatever happens.

    `listening` is a socket that was opened before; `how` are uvicorn's.
    """
    opened = listening or socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(application, lifespan="off", log_level="warning", **how))
    thread = threading.Thread(target=server.run, args=([opened],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield opened.getsockname()[1]
    finally:
        server.end()
        thread.join()
        opened.close()


class _Server(uvicorn.Server):
    """Ends as soon as it is asked to: uvicorn looks ten times a second whether it was, and gives
    connections, of which there are none any more, another tenth. A test takes less than that."""

    def end(self) -> None:
        self.should_exit = True
        if self.started:
            self._loop.call_soon_threadsafe(self._asked.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._asked = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        if not self.should_exit:
            await self._asked.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.connections:
            await super().shutdown(sockets)
            return
        for one in self.servers:
            one.close()
        for listening in sockets or []:
            listening.close()
        await self._wait_tasks_to_complete()
