"""A ZIP archive as a stream (PS3.18 8.7.3, application/zip), made while it is sent.

Its files are as they are, in deflate's stored blocks: images hardly shrink, and readers that take
an archive as a stream cannot find the end of a file that is merely stored.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file, so that the same files are the same archive."""


class _Drain:
    """Takes what the archive writes, and gives it out."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._waiting.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        waiting, self._waiting = self._waiting, []
        return b"".join(waiting)


def archive(files: Iterable[tuple[str, Iterable[bytes | memoryview]]]) -> Iterator[bytes]:
    """The archive of files, path and pieces each, in pieces. Memory is bounded by theirs."""
    drain = _Drain()
    with zipfile.ZipFile(
        cast(IO[bytes], drain), "w", zipfile.ZIP_DEFLATED, compresslevel=0
    ) as writing:
        for path, pieces in files:
            named = zipfile.ZipInfo(path, _DATE)
            named.compress_type, named.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with writing.open(named, "w", force_zip64=True) as file:
                for piece in pieces:
                    file.write(piece)
                    yield drain.taken()
            yield drain.taken()
    yield drain.taken()
