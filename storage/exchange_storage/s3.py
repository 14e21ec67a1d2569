"""Objects in an S3 bucket (Amazon S3 API: MinIO, SeaweedFS, Ceph RGW), written once.

An object is received into a local staging file, since its key carries a digest that is known only
at its end, and uploaded by `keep`: a look, a PUT, a look. The PUT carries `If-None-Match: *`
(RFC 9110, 13.1.2), so of two writers one wins and the other then sees what is there. A server that
ignores the condition lets the later of two simultaneous writers win: harmless where, as with our
keys, the key carries the digest of the bytes, for both then write the same.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Self, TypeGuard

import minio
import urllib3
from minio.datatypes import Object
from minio.error import MinioException, S3Error

from exchange_storage.objects import (
    CHUNK,
    ObjectDiffers,
    ObjectNotFound,
    ObjectStore,
    ObjectStoreError,
    Source,
    Stored,
    StoreFull,
    StoreUnavailable,
    checked_key,
    span,
)
from exchange_storage.staging import StagedFile, StagingArea

log = logging.getLogger(__name__)

PART_SIZE = 16 << 20
"""Bytes sent in one request; an upload keeps about two parts in memory. S3 wants 5 MiB or more."""

LABEL = "x-amz-meta-sha256"
"""User metadata with the SHA-256 of the object: by it the server shows that it has taken what was
just sent. Of what lay there before it says nothing; that is read."""


class _Taken(StoreUnavailable):
    """Another writer was first, or is at it."""


class _NoBucket(StoreUnavailable):
    """The bucket is missing: the server was not there when the store was opened."""


class _PastTheEnd(StoreUnavailable):
    """The range begins where the object has ended."""


_ANSWERS: dict[str, type[ObjectStoreError]] = {
    "NoSuchKey": ObjectNotFound,
    "NoSuchBucket": _NoBucket,
    "PreconditionFailed": _Taken,
    "ConditionalRequestConflict": _Taken,
    "InvalidRange": _PastTheEnd,
    "XMinioStorageFull": StoreFull,
    "XMinioAdminBucketQuotaExceeded": StoreFull,
    "QuotaExceeded": StoreFull,
}
"""What we answer to the error codes of S3 and of MinIO; to all others, StoreUnavailable."""

_REFUSALS = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})

_SEEN = "bucket"
"""The file in the staging directory that says which bucket this machine has seen."""


def _says_nothing(error: Exception | None) -> TypeGuard[urllib3.exceptions.TimeoutError]:
    # A connection that is refused is one of urllib3's time-outs, too.
    return isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    )


class _Again(urllib3.Retry):
    """Asks again who was not reached or broke off, and not who says nothing."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        *more: Any,
        **told: Any,
    ) -> Self:
        if _says_nothing(error):
            raise error
        return super().increment(method, url, response, error, *more, **told)


READING = urllib3.Timeout(connect=5, read=15)
"""Somebody waits for what is read. Each of these is of silence, and none of the whole."""

WRITING = urllib3.Timeout(connect=30, read=30)
"""Nobody waits for what is written; urllib3 bounds by the first each block that is sent, too."""

_TWICE = {"total": 2, "backoff_factor": 0.2, "status_forcelist": [502, 503, 504]}
_READ_AGAIN, _WRITE_AGAIN = _Again(**_TWICE), urllib3.Retry(**_TWICE)  # type: ignore[arg-type]
_ONCE = _Again(total=0)

SILENT_SECONDS = 5.0
"""For so long after it said nothing to anybody the server is not asked; then one finds out."""


class _Silent(urllib3.exceptions.HTTPError):
    """The server said nothing to those who asked before: nobody waits for that once more."""


class _Server:
    """Whether the server answers, as all who ask it from this process have found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard = -math.inf
        self._ask_again: float | None = None
        self.reached = True
        """Whether the last who asked got any answer."""

    def ask(self) -> float:
        """What time it is, for `not_heard`. Raises _Silent."""
        with self._lock:
            now = monotonic()
            if self._ask_again is not None:
                if now < self._ask_again:
                    raise _Silent
                self._ask_again = now + float(READING.read_timeout or 0) + SILENT_SECONDS
            return now

    def heard(self) -> None:
        """It has answered, or goes on answering."""
        with self._lock:
            self._heard, self._ask_again, self.reached = monotonic(), None, True

    def not_heard(self, since: float, error: Exception) -> None:
        """Who asked at `since` got no answer; if nobody else did since then, it is silent."""
        with self._lock:
            self.reached = False
            if self._heard > since:
                return
            again = monotonic() + SILENT_SECONDS if _says_nothing(error) else None
            self._ask_again = again


class _Calls(urllib3.PoolManager):
    """The requests to one server.

    Those that make a labelled object, and no other, get `If-None-Match: *`. Who reads is told at
    once what another has found out: that the server is silent.
    """

    def __init__(self) -> None:
        super().__init__(maxsize=16)
        self.server = _Server()

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        reads = method in {"GET", "HEAD"}
        # In parts, the object comes to be when the upload is completed.
        completes = method == "POST" and "uploadId=" in url
        if completes or (method == "PUT" and LABEL in kw["headers"]):
            kw["headers"]["If-None-Match"] = "*"
        if kw.get("body"):  # sent in blocks: a time-out is for each of them
            kw["body"] = io.BytesIO(kw["body"])
        if reads:
            kw |= {"timeout": READING, "retries": _READ_AGAIN if self.server.reached else _ONCE}
        else:
            kw |= {"timeout": WRITING, "retries": _WRITE_AGAIN}
        since = self.server.ask() if reads else monotonic()
        try:
            answer = super().urlopen(method, url, redirect=redirect, **kw)
        except urllib3.exceptions.HTTPError as error:
            self.server.not_heard(since, error)
            raise
        self.server.heard()
        return answer


class S3Store(ObjectStore):
    """Objects of one bucket. Several processes on several machines may share it."""

    def __init__(self, client: minio.Minio, bucket: str, staging: Path) -> None:
        """Use `bucket` through `client`; receive objects into files below `staging`.

        The client should come with bounded time-outs and retries: see `connect`, whose client also
        writes conditionally. Raises StoreFull, StoreUnavailable for the staging directory.
        """
        self._client = client
        self._bucket = bucket
        self._staging = StagingArea(staging)
        self._seen = staging / _SEEN
        self._place = bucket
        self._noted = False
        self._named = False
        """Whether the log has been told that the bucket is missing."""
        self._pool: _Calls | None = None

    @classmethod
    def connect(
        cls,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        *,
        secure: bool,
        region: str | None = None,
        staging: Path,
    ) -> S3Store:
        """Open `bucket` at `endpoint` (``host:port``), and make it where it is missing.

        Where this machine has seen it nothing is asked: a command that needs no object waits for no
        server. A bucket that was seen and is gone is not made again, since a new and empty one
        would hide that all is lost: all that is asked of it says so. Nor is a server an error that
        does not answer now: the bucket is made by the first `keep`. TLS trusts what the operating
        system trusts.
        """
        pool = _Calls()
        client = minio.Minio(
            endpoint, access_key, secret_key, secure=secure, region=region, http_client=pool
        )
        store = cls(client, bucket, staging)
        store._pool = pool
        store._place = f"{endpoint}/{bucket}"
        if _read(store._seen) != store._place:
            try:
                store._make_bucket()
            except StoreUnavailable as error:
                log.warning("%s", error)
        return store

    def stage(self) -> StagedFile:
        return StagedFile(self._staging, self._keep)

    def put(self, key: str, source: Source) -> Stored:
        if not isinstance(source, Path):
            return super().put(key, source)
        checked_key(key)
        with source.open("rb") as file:  # a file needs no second copy in staging
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return self._upload(key, file, file.tell(), digest)

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        checked_key(key)
        span(0, start, length)
        if length == 0:  # which the SDK takes for "all"
            self.stat(key)
            return iter(())
        try:
            with _answering(key):
                response = self._client.get_object(self._bucket, key, start, length or 0)
        except _PastTheEnd:
            return iter(())
        return _pieces(key, response, self._pool.server.heard if self._pool else lambda: None)

    def stat(self, key: str) -> Stored:
        try:
            return _stored(key, self._look(checked_key(key)))
        except ObjectNotFound:  # or its bucket is: the answer to a HEAD has no body that says so
            with _answering():
                there = self._client.bucket_exists(self._bucket)
            if not there:
                raise _NoBucket(_missing(self._bucket)) from None
            raise

    def delete(self, key: str) -> None:
        self.stat(key)  # S3 answers the deletion of nothing with success
        with _answering(key):
            self._client.remove_object(self._bucket, key)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        with _answering():
            for found in self._client.list_objects(self._bucket, prefix, recursive=True):
                key = str(found.object_name)
                if key.startswith(prefix):  # SeaweedFS takes the prefix "a//" for "a/"
                    yield _stored(key, found)

    def close(self) -> None:
        self._staging.close()
        if self._pool is not None:
            self._pool.clear()

    def _keep(self, staged: StagedFile, key: str) -> Stored:
        with staged.reader() as file:
            return self._upload(key, file, staged.size, staged.digest)

    def _upload(self, key: str, file: BinaryIO, size: int, digest: str) -> Stored:
        """Keep `size` bytes of `file` under `key`; answer with what the server then says of it."""
        sent = False
        for _ in range(4):
            try:
                found = self._look(key)
                label = (found.metadata or {}).get(LABEL) if sent else None
                if found.size != size or (label or self._read_back(key)) != digest:
                    raise ObjectDiffers(key)
                self._note_bucket()
                return _stored(key, found)
            except ObjectNotFound:  # or deleted while it was read
                file.seek(0)
                sent = self._send(key, file, size, digest)
            except _NoBucket:
                self._make_bucket()
        raise StoreUnavailable("the S3 store neither takes the object nor shows it")

    def _read_back(self, key: str) -> str:
        """The digest of what is there; "" where the server shows it and cannot give it out."""
        try:
            return self.digest(key)
        except StoreUnavailable:
            self._look(key)
            return ""

    def _send(self, key: str, file: BinaryIO, size: int, digest: str) -> bool:
        """Whether the server has taken it, from here and from nobody else."""
        try:
            with _answering(key):
                self._client.put_object(
                    self._bucket,
                    key,
                    file,
                    size,
                    content_type="application/dicom" if key.endswith(".dcm") else "",
                    metadata={LABEL: digest},
                    part_size=PART_SIZE,
                    num_parallel_uploads=1,
                )
        except _Taken:
            return False
        except _NoBucket:
            self._make_bucket()
            return False
        return True

    def _look(self, key: str) -> Object:
        with _answering(key):
            return self._client.stat_object(self._bucket, key)

    def _make_bucket(self) -> None:
        """Make the bucket where it is missing and this machine has never seen it."""
        with _answering():
            if not self._client.bucket_exists(self._bucket):
                if _read(self._seen) == self._place:
                    if not self._named:
                        log.error("%s", _missing(self._bucket))
                    self._named = True
                    raise _NoBucket(_missing(self._bucket))
                self._client.make_bucket(self._bucket)
                log.warning("the S3 bucket %s was missing, and is made", self._bucket)
        self._note_bucket()

    def _note_bucket(self) -> None:
        if not self._noted:
            with suppress(OSError):  # it is noted by the next then
                if _read(self._seen) != self._place:
                    self._seen.write_text(self._place)
                self._noted = True


@contextmanager
def _answering(key: str = "") -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        answer = _ANSWERS.get(error.code or "", StoreUnavailable)
        if answer is ObjectNotFound:
            raise answer(key) from error
        if answer is _NoBucket:
            raise answer(_missing(error.bucket_name or "")) from error
        did = "refused the access key" if error.code in _REFUSALS else "answered"
        raise answer(f"the S3 store {did}: {error.code}") from error
    except _Silent as error:
        raise StoreUnavailable("the S3 store does not answer") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(f"the S3 store did not answer ({type(error).__name__})") from error


def _missing(bucket: str) -> str:
    return (
        f"the S3 bucket {bucket} is missing (NoSuchBucket): restore it, or make it anew with an S3"
        " client if what was in it may be lost; until then objects wait in the spool"
    )


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _stored(key: str, found: Object) -> Stored:
    if found.size is None or found.last_modified is None:
        raise StoreUnavailable("the S3 store tells neither size nor date")
    return Stored(key, found.size, found.last_modified)


def _pieces(
    key: str, response: urllib3.BaseHTTPResponse, heard: Callable[[], None]
) -> Iterator[bytes]:
    try:
        with _answering(key):
            for piece in response.stream(CHUNK, decode_content=False):
                heard()
                yield piece
    finally:
        response.close()  # a connection that was read to its end is in the pool again by now
