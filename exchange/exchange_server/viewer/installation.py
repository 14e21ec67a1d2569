"""Prepares OHIF's ready-built release (npm ``@ohif/app``, MIT) to be served below ``/viewer``.

OHIF expects to lie at the root of its host, where our pages are: the address of its files stands in
its bundles as "/", and is written anew. What is not needed is left out: the runtime for AI models
(two thirds of the release), source maps, and scripts that would ask other hosts. The release has
its scripts as people write them, which a browser reads twice as long: esbuild, where it is given,
makes them small.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from exchange.errors import Invalid

PACKAGE = "@ohif/app"
VERSION = "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="  # noqa: E501
"""Of the package's tarball, as its registry tells it (Subresource Integrity)."""

MINIFIER = "0.28.2"
MINIFIERS = {
    "x86_64": (
        "@esbuild/linux-x64",
        "sha512-4xTZr1FUmSoQW4XIWmit3tzQrUTZM+N3P0XV8xROKYF50XfI7xeO90+1bZvNwxIufQ9hDQVRJH5YhgPVF8A/HQ==",
    ),
    "aarch64": (
        "@esbuild/linux-arm64",
        "sha512-pW4AC0P3it8c7do9MVM4p51FzHzdM/TZrerurgRcHJ2WTa1VQ1CIq18xncfpBJw4ojkiZZrKW2yIBWBP92j6Ug==",
    ),
}
"""By machine: the package of esbuild (MIT) of that version, and its integrity."""

MINIFYING = 120.0
"""Seconds that one script takes, at most."""

FORM = 3
"""Counts the ways in which the release was prepared: browsers keep its files for good."""

RELEASE = f"{VERSION}.{FORM}"
PREFIX = f"/viewer/files/{RELEASE}/"
"""Where the files are served."""

MANIFEST = "viewer.json"
"""What was prepared: the release, and of each file what it needs to be served."""

FILE_LIMIT = 64 << 20
"""Bytes of the largest file."""
FILES_LIMIT = 1000
"""Files of a release, at most."""

_DIST = "package/dist/"
_LICENSE = "package/LICENSE"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_LEFT_OUT = re.compile(
    r"ort/.*|customizations/.*|.*\.map|_headers|_redirects|serve\.json|manifest\.json|index\.html"
    r"|app-config\.js|google\.js|sw\.js|init-service-worker\.js|silent-refresh\.html"
    r"|oidc-client\.min\.js|polyfill\.min\.js|es6-shim\.min\.js"
    r"|assets/(?:apple|android|mstile|firefox|coast|yandex|browserconfig|manifest).*"
)
_MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""Files of other kinds are not served, and so not kept."""
_PACKED = frozenset({".js", ".css", ".svg", ".wasm", ".txt"})

_ROOTS = (
    (b'__webpack_require__.p = "/"', b'__webpack_require__.p = "%b"'),
    (b"'/dicom-microscopy-viewer/", b"'%bdicom-microscopy-viewer/"),
)
_CONTEXTS = (b"webGlContextCount: 7,", b"webGlContextCount: 1,")
"""OHIF makes seven WebGL contexts before it shows anything, where one draws all viewports."""
_STYLE_ROOT = re.compile(rb"url\(/(?!/)")
_BASIC = b'module === "@ohif/extension-cornerstone-dicom-sr"'
"""Where the bundle names the scripts that everything rests on: they are asked for next."""
_SCRIPT = re.compile(rb"__webpack_require__\.e\((?:/\* import\(\) \*/ )?(\d+)\)")
_BUNDLE = re.compile(r"app\.bundle\.[0-9a-f]+\.js")
_WRITTEN = re.compile(r"[\w-]+\.bundle\.[0-9a-f]+\.js")
"""Scripts that the release has as they were written."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the viewer, as it lies there."""

    path: Path
    media_type: str
    size: int
    packed_size: int | None
    """Bytes of the same compressed by gzip, beside it; None where that does not pay."""

    @property
    def packed(self) -> Path:
        """Where it lies compressed."""
        return self.path.with_name(f"{self.path.name}.gz")


@dataclass(frozen=True, slots=True)
class Installed:
    """A viewer that is ready to be served."""

    files: Mapping[str, File]
    """By name; what is not here is not served."""
    bundle: str
    """The script with which it begins."""
    following: tuple[str, ...]
    """Scripts that it asks for at once: a browser may fetch them meanwhile."""


def cache() -> Path:
    """Where `deploy/viewer` puts this release, once for all of a user's exchanges."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "imaging-exchange" / f"viewer-{RELEASE}"


def installed(place: Path) -> Installed | None:
    """The viewer that lies at `place`; None where there is none of this release."""
    try:
        told: dict[str, Any] = json.loads((place / MANIFEST).read_bytes())
        if told["release"] != RELEASE:
            return None
        files = {
            name: File(place / name, one["type"], one["size"], one["packed"])
            for name, one in told["files"].items()
        }
        return Installed(files, told["bundle"], tuple(told["following"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def minifier() -> tuple[str, str] | None:
    """Package, with its version, and integrity of the esbuild that this machine runs, if any."""
    known = MINIFIERS.get(platform.machine()) if sys.platform == "linux" else None
    return None if known is None else (f"{known[0]}@{MINIFIER}", known[1])


def install(
    tarball: Path, place: Path, *, integrity: str = INTEGRITY, esbuild: Path | None = None
) -> Installed:
    """Prepare the release in `tarball` at `place`, whole or not at all; a known one stays.

    `esbuild` is the tarball of `minifier()`. Raises Invalid where a tarball is another one than
    what its integrity names, or holds what a release does not have, and where `place` cannot be
    written.
    """
    if (known := installed(place)) is not None:
        return known
    _check(tarball, f"{PACKAGE} {VERSION}", integrity)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".viewer-", dir=place.parent) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            _prepare(tarball, made, _program(esbuild, Path(folder)) if esbuild else None)
            made.chmod(0o755)
            if place.exists():
                place.rename(Path(folder) / "before")
            made.rename(place)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise Invalid(f"the viewer cannot be prepared at {place}: {error}") from error
    ready = installed(place)
    if ready is None:
        raise Invalid(f"the viewer at {place} was changed meanwhile")
    return ready


def _program(tarball: Path, folder: Path) -> Path:
    """The esbuild of a package, unpacked. Raises Invalid."""
    if (known := minifier()) is None:
        raise Invalid("esbuild is used on Linux alone, on x86-64 and ARM: leave it out")
    name, integrity = known
    _check(tarball, name, integrity)
    program = folder / "esbuild"
    # Not by `extract`, which has its filter from Python 3.11.4 on: Debian 12 has 3.11.2.
    with tarfile.open(tarball, "r:gz") as opened, program.open("wb") as written:
        content = opened.extractfile("package/bin/esbuild")
        if content is None:
            raise Invalid(f"{name} holds no program")
        shutil.copyfileobj(content, written)
    program.chmod(0o700)
    return program


def _check(tarball: Path, package: str, integrity: str) -> None:
    kind, _, expected = integrity.partition("-")
    try:
        with tarball.open("rb") as opened:
            found = hashlib.file_digest(opened, kind).digest()
    except OSError as error:
        raise Invalid(f"{tarball} cannot be read: {error.strerror}") from error
    if not hmac.compare_digest(base64.b64encode(found).decode(), expected):
        raise Invalid(f"{tarball.name} is not {package}: its {kind} digest is another")


def _prepare(tarball: Path, folder: Path, program: Path | None) -> None:
    files: dict[str, dict[str, Any]] = {}
    bundles: dict[str, bytes] = {}
    with tarfile.open(tarball, "r:gz") as opened:
        for member in opened:
            name = "LICENSE.txt" if member.name == _LICENSE else member.name.removeprefix(_DIST)
            if (name == member.name and name != "LICENSE.txt") or not member.isreg():
                continue
            if _LEFT_OUT.fullmatch(name) or PurePosixPath(name).suffix not in _MEDIA_TYPES:
                continue
            content = opened.extractfile(member)
            if (
                not _NAME.fullmatch(name)
                or member.size > FILE_LIMIT
                or len(files) >= FILES_LIMIT
                or content is None
            ):
                raise Invalid(f"this is no release of {PACKAGE}: {name[:100]!r}")
            placed = _placed(name, PurePosixPath(name).suffix, content.read())
            if _BUNDLE.fullmatch(name):
                bundles[name] = placed
            if program is not None and _WRITTEN.fullmatch(name):
                placed = _minified(name, placed, program)
            files[name] = _put(folder, name, placed)
    if len(bundles) != 1:
        raise Invalid(f"this is no release of {PACKAGE}: it has {len(bundles)} main bundles")
    ((bundle, text),) = bundles.items()
    manifest = {
        "release": RELEASE,
        "bundle": bundle,
        "following": _following(text, files),
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _following(bundle: bytes, files: Iterable[str]) -> list[str]:
    """The scripts of the basic extension, in the order in which they are asked for."""
    _, _, behind = bundle.partition(_BASIC)
    numbers = [one.decode() for one in _SCRIPT.findall(behind.partition(b";")[0])]
    names = {name.partition(".")[0]: name for name in files if ".bundle." in name}
    return [names[one] for one in numbers if one in names]


def _minified(name: str, content: bytes, program: Path) -> bytes:
    """The same script, with what licences want to have said at its end. Raises Invalid."""
    told = [str(program), "--loader=js", "--minify", "--charset=utf8", "--legal-comments=eof"]
    told.append("--log-level=error")
    try:
        return subprocess.run(  # noqa: S603 - a program whose digest was checked
            told, input=content, capture_output=True, timeout=MINIFYING, check=True
        ).stdout
    except subprocess.SubprocessError as error:
        raise Invalid(f"esbuild cannot make {name} smaller: install without it") from error


def _put(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    suffix = PurePosixPath(name).suffix
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    told = {"type": _MEDIA_TYPES[suffix], "size": len(content), "packed": None}
    if suffix in _PACKED:
        packed = gzip.compress(content, mtime=0)
        if len(packed) < len(content):
            path.with_name(f"{path.name}.gz").write_bytes(packed)
            told["packed"] = len(packed)
    return told


def _placed(name: str, suffix: str, content: bytes) -> bytes:
    """The content with the address of the files where it has said "/"."""
    prefix = PREFIX.encode()
    if suffix == ".css":
        return _STYLE_ROOT.sub(b"url(" + prefix, content)
    if suffix != ".js":
        return content
    for root, placed in _ROOTS:
        content = content.replace(root, placed % prefix)
    content = content.replace(*_CONTEXTS)
    if _BUNDLE.fullmatch(name) and prefix not in content:
        raise Invalid(f"this is no release of {PACKAGE} as it is known here: {name}")
    return content
