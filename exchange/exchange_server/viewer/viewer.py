"""The viewer as it is served: its page, its files, its configuration, and the reader's session.

Its files are the same for everybody, and free software: they are had without signing in, and kept
by browsers for good, since their address changes with their content. The page needs a session.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of local functions.

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files as resources
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

from exchange.errors import NotAuthenticated, NotFound
from exchange_dicom.web_answers import takes_gzip
from exchange_server.portal.language import Language, spoken
from exchange_server.portal.pages import PREFIX as PORTAL
from exchange_server.portal.pages import Pages
from exchange_server.viewer import installation
from exchange_server.viewer.installation import Installed

DOOR = "viewer"
"""What the audit trail calls it."""

PREFIX = "/viewer"
DICOMWEB = f"{PREFIX}/dicom-web"
"""Where the viewer's form of DICOMweb is."""

MODES = ("", "viewer", "basic", "segmentation", "tmtv", "dynamic-volume", "microscopy")
"""OHIF's own routes: the list of studies, and the ways of looking at some of them."""

SOURCE = "exchange"
"""What OHIF calls us in its routes."""

COMPARING = "exchange.comparing"
"""Of OHIF's ways of hanging images, ours: two studies beside each other (static/config.js)."""

FOR_GOOD = "public, max-age=31536000, immutable"

HEADERS = {
    # OHIF compiles WebAssembly (decoders), starts workers from blobs, and styles elements.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "media-src 'self' blob:; object-src 'self' blob:; frame-src 'self' blob:; "
        "connect-src 'self' data: blob:; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
}

_LANGUAGES = {Language.CHINESE: "zh", Language.ENGLISH: "en-US"}
"""As OHIF calls them."""

_CONFIGURATION = (resources("exchange_server.viewer") / "static" / "config.js").read_text("utf-8")


def opening(studies: Sequence[str]) -> str:
    """Where the viewer shows these studies, the first two side by side if there are several."""
    beside = f"&hangingProtocolId={COMPARING}" * (len(studies) > 1)
    return f"{PREFIX}/viewer?StudyInstanceUIDs={quote(','.join(studies), safe=',')}{beside}"


def foreseen(found: Installed | None) -> tuple[str, ...]:
    """The addresses of the scripts that the viewer begins with."""
    if found is None:
        return ()
    return tuple(f"{installation.PREFIX}{name}" for name in (found.bundle, *found.following))


def viewer(pages: Pages, found: Installed | None) -> APIRouter:
    """The routes of the viewer, to be mounted under `PREFIX`."""
    router = APIRouter(route_class=pages.route(), include_in_schema=False)

    @router.get(f"/files/{installation.RELEASE}/{{name:path}}")
    def file(request: Request, name: str) -> Response:
        one = found.files.get(name) if found is not None else None
        if one is None:
            raise HTTPException(404)
        headers = {**HEADERS, "Cache-Control": FOR_GOOD, "Vary": "Accept-Encoding"}
        if one.packed_size is not None and takes_gzip(request.headers.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
            return FileResponse(one.packed, headers=headers, media_type=one.media_type)
        return FileResponse(one.path, headers=headers, media_type=one.media_type)

    @router.get("/config.js")
    def configuration(request: Request) -> Response:
        words = spoken(request)
        told = {
            "files": installation.PREFIX,
            "dicomweb": DICOMWEB,
            "session": f"{PREFIX}/session",
            "signIn": f"{PORTAL}/sign-in",
            "idle": pages.cookies.lifetime.idle.total_seconds(),
            "language": _LANGUAGES[words.language],
            "comparing": {
                "id": COMPARING,
                "name": words.say("比较两项检查", "Two studies side by side"),
            },
            "name": words.say("区域医学影像交换平台", "Imaging exchange"),
        }
        script = f"const exchange = {json.dumps(told)};\n{_CONFIGURATION}"
        headers = {**HEADERS, "Cache-Control": "no-cache", "Vary": "Cookie"}
        return Response(script, headers=headers, media_type="text/javascript; charset=utf-8")

    @router.get("/session")
    def session(request: Request) -> Response:
        """Whether the reader is still signed in: 204 or 401; asking is a use of the session."""
        try:
            pages.cookies.visitor(request, DOOR)
        except NotAuthenticated:
            return Response(status_code=401)
        return Response(status_code=204)

    def page(request: Request) -> Response:
        pages.visitor(request)
        if found is None:
            raise NotFound("the viewer is not installed: exchange viewer install")
        words = spoken(request)
        title = words.say("影像浏览", "Images")
        return HTMLResponse(_page(found, words.language, title), headers=HEADERS)

    for mode in MODES:
        for path in {f"/{mode}", f"/{mode}/{SOURCE}" if mode else ""}:
            router.add_api_route(path, page, methods=["GET"])
    return router


def _page(found: Installed, language: str, title: str) -> str:
    prefix = installation.PREFIX
    preloaded = "\n".join(
        f'<link rel="preload" as="script" href="{escape(address)}">' for address in foreseen(found)
    )
    return f"""<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="{prefix}assets/favicon.ico">
{preloaded}
<link rel="stylesheet" href="{prefix}app.bundle.css">
<script src="{PREFIX}/config.js"></script>
<script defer src="{prefix}{escape(found.bundle)}"></script>
</head>
<body>
<noscript>{escape(title)}: JavaScript</noscript>
<div id="react-portal"></div>
<div id="root"></div>
</body>
</html>
"""
