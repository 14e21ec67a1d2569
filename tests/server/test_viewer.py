"""The viewer is prepared from one known release, and served as its browsers need it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fastapi import FastAPI
from region import ADMINISTRATOR, Region, region
from starlette.testclient import TestClient

from exchange import users
from exchange.errors import Invalid
from exchange.policy import Role
from exchange_server import composition
from exchange_server.keys import make_keys
from exchange_server.settings import Settings
from exchange_server.viewer import installation
from exchange_server.viewer.installation import PREFIX, install, installed

PASSWORD = "correct horse battery"
SAME = {"Sec-Fetch-Site": "same-origin"}
BUNDLE = "app.bundle.0123456789abcdef.js"
RELEASE: Mapping[str, bytes] = {
    "package/package.json": b"{}",
    "package/LICENSE": b"MIT",
    "package/dist/index.html": b"<html>",
    f"package/dist/{BUNDLE}": b'__webpack_require__.p = "/";\n'
    b'if (module === "@ohif/extension-cornerstone-dicom-sr") '
    b"{ [__webpack_require__.e(1), __webpack_require__.e(/* import() */ 2)]; }" + b"1;" * 500,
    "package/dist/2493.bundle.0123456789abcdef.js": b"{ webGlContextCount: 7, }",
    "package/dist/1.bundle.js": b"'/dicom-microscopy-viewer/a.min.js'",
    "package/dist/app.bundle.css": b"@font-face{src:url(/a.woff2)} b{background:url(//x)}"
    + b" " * 99,
    "package/dist/a.wasm": b"\0asm" * 300,
    "package/dist/assets/images/CT.png": b"\x89PNG",
    "package/dist/ort/ort.wasm": b"\0asm",
    "package/dist/app.bundle.js.map": b"{}",
    "package/dist/sw.js": b"importScripts('https://elsewhere')",
}


def packed(place: Path, files: Mapping[str, bytes]) -> tuple[Path, str]:
    """A package of these files, and its integrity."""
    tarball = place / "ohif.tgz"
    with tarfile.open(tarball, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    return tarball, f"sha512-{digest}"


def prepared(place: Path, **more: bytes) -> installation.Installed:
    tarball, integrity = packed(place, {**RELEASE, **more})
    return install(tarball, place / "viewer", integrity=integrity)


def test_what_the_viewer_needs_is_kept_under_an_address_of_its_own(tmp_path: Path) -> None:
    ready = prepared(tmp_path)

    assert sorted(ready.files) == sorted(
        [
            "LICENSE.txt",
            "1.bundle.js",
            "2493.bundle.0123456789abcdef.js",
            "a.wasm",
            BUNDLE,
            "app.bundle.css",
            "assets/images/CT.png",
        ]
    )
    text = {name: one.path.read_bytes() for name, one in ready.files.items()}
    assert text[BUNDLE].startswith(f'__webpack_require__.p = "{PREFIX}"'.encode())
    assert text["2493.bundle.0123456789abcdef.js"] == b"{ webGlContextCount: 1, }"
    assert text["1.bundle.js"] == f"'{PREFIX}dicom-microscopy-viewer/a.min.js'".encode()
    assert (
        text["app.bundle.css"].rstrip()
        == f"@font-face{{src:url({PREFIX}a.woff2)}} b{{background:url(//x)}}".encode()
    )
    assert gzip.decompress(ready.files[BUNDLE].packed.read_bytes()) == text[BUNDLE]
    assert installed(tmp_path / "viewer") == ready
    assert ready.following == ("1.bundle.js",)  # as far as they are there
    assert list(tmp_path.glob(".viewer-*")) == []


def test_another_package_than_the_known_one_is_not_unpacked(tmp_path: Path) -> None:
    tarball, integrity = packed(tmp_path, RELEASE)
    tarball.write_bytes(tarball.read_bytes() + b"\0")

    with pytest.raises(Invalid, match="digest is another"):
        install(tarball, tmp_path / "viewer", integrity=integrity)
    with pytest.raises(Invalid, match="digest is another"):
        install(tarball, tmp_path / "viewer")
    right, digest = packed(tmp_path, RELEASE)
    with pytest.raises(Invalid, match="is not @esbuild/"):
        install(right, tmp_path / "viewer", integrity=digest, esbuild=tarball)
    with pytest.raises(Invalid, match="cannot be read"):
        install(tmp_path / "nothing.tgz", tmp_path / "viewer")
    assert installed(tmp_path / "viewer") is None


def test_scripts_are_made_small_by_a_program_and_say_the_same(tmp_path: Path) -> None:
    """The program reads a script and writes it, as esbuild does; a script it cannot read stops."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec tr -d ' '\n")
    program.chmod(0o700)
    made = tmp_path / "made"
    made.mkdir()
    installation._prepare(packed(tmp_path, RELEASE)[0], made, program)

    ready = json.loads((made / installation.MANIFEST).read_text())
    assert (made / "2493.bundle.0123456789abcdef.js").read_bytes() == b"{webGlContextCount:1,}"
    assert ready["following"] == ["1.bundle.js"]  # known by what the script was before
    program.write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "other").mkdir()
    with pytest.raises(Invalid, match="install without it"):
        installation._prepare(packed(tmp_path, RELEASE)[0], tmp_path / "other", program)


@pytest.mark.parametrize(
    "files",
    [
        {"package/dist/../../out.js": b""},
        {"package/dist//etc/out.js": b""},
        {"package/dist/.hidden.js": b""},
        {"package/dist/app.bundle.ffff.js": b'__webpack_require__.p = "/"'},
        {f"package/dist/{BUNDLE}": b"another release"},
    ],
)
def test_a_package_that_is_made_up_leaves_nothing(
    tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    tarball, integrity = packed(tmp_path, {**RELEASE, **files})

    with pytest.raises(Invalid, match="no release"):
        install(tarball, tmp_path / "viewer", integrity=integrity)

    assert sorted(one.name for one in tmp_path.iterdir()) == ["ohif.tgz"]


def test_a_viewer_of_an_earlier_release_is_replaced(tmp_path: Path) -> None:
    prepared(tmp_path)
    manifest = tmp_path / "viewer" / installation.MANIFEST
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"release": "3.0"}))
    (tmp_path / "viewer" / "old.js").write_text("")
    assert installed(tmp_path / "viewer") is None

    prepared(tmp_path)

    assert installed(tmp_path / "viewer") is not None
    assert not (tmp_path / "viewer" / "old.js").exists()


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    with region(f"sqlite:///{tmp_path_factory.mktemp('city') / 'index.sqlite'}") as made:
        with made.exchange.on_behalf_of(ADMINISTRATOR) as access:
            users.add(
                access,
                name="zhang",
                display_name="张医生",
                role=Role.CLINICIAN,
                organization="beicheng",
                password=PASSWORD,
            )
        yield made


def application(city: Region, folder: Path) -> FastAPI:
    make_keys(folder / "keys")
    return composition.application(city.exchange, Settings(data=folder))


def opened(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://testserver", follow_redirects=False)


@pytest.fixture(scope="module")
def site(city: Region, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("site")
    prepared(folder)
    return application(city, folder)


@pytest.fixture
def browser(site: FastAPI) -> Iterator[TestClient]:
    with opened(site) as made:
        yield made


@pytest.fixture
def reader(browser: TestClient) -> TestClient:
    answer = browser.post(
        "/portal/sign-in", data={"name": "zhang", "password": PASSWORD}, headers=SAME
    )
    assert answer.status_code == 303
    return browser


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (BUNDLE, "text/javascript; charset=utf-8"),
        ("app.bundle.css", "text/css; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("assets/images/CT.png", "image/png"),
    ],
)
def test_files_are_had_by_everybody_and_kept_for_good(
    browser: TestClient, name: str, kind: str
) -> None:
    packed = browser.get(f"{PREFIX}{name}", headers={"Accept-Encoding": "gzip, br"})
    plain = browser.get(f"{PREFIX}{name}", headers={"Accept-Encoding": "identity"})

    for answer in (packed, plain):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        assert "immutable" in answer.headers["cache-control"]
        assert "unsafe-eval'" not in answer.headers["content-security-policy"].replace(
            "'wasm-unsafe-eval'", ""
        )
    assert packed.content == plain.content
    assert packed.headers.get("content-encoding") == (None if name.endswith("png") else "gzip")
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize(
    "path",
    [
        f"{PREFIX}../viewer.json",
        f"{PREFIX}viewer.json",
        f"{PREFIX}%2e%2e/%2e%2e/keys/audit.pem",
        f"{PREFIX}{BUNDLE}.gz",
        f"{PREFIX}/etc/passwd",
        f"{PREFIX}assets",
        "/viewer/files/3.0/app.bundle.css",
        "/viewer/nonsense",
        "/viewer/viewer/elsewhere",
    ],
)
def test_what_is_not_the_viewer_s_is_not_there(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


@pytest.mark.parametrize(
    "path", ["/viewer", "/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2", "/viewer/tmtv/exchange"]
)
def test_its_own_routes_are_its_page_once_somebody_has_signed_in(
    site: FastAPI, reader: TestClient, path: str
) -> None:
    page = reader.get(path)

    assert page.status_code == 200
    assert f'src="{PREFIX}{BUNDLE}"' in page.text
    assert 'src="/viewer/config.js"' in page.text
    assert f'<link rel="preload" as="script" href="{PREFIX}1.bundle.js">' in page.text
    assert "<script>" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    with opened(site) as stranger:
        sent = stranger.get(path)
        assert sent.status_code == 303
        assert sent.headers["location"].startswith("/portal/sign-in?next=/viewer")


def test_the_configuration_leads_to_this_site_alone(browser: TestClient) -> None:
    script = browser.get("/viewer/config.js")

    assert script.headers["cache-control"] == "no-cache"
    assert '"language": "zh"' in script.text
    assert '"dicomweb": "/viewer/dicom-web"' in script.text
    assert "http://" not in script.text
    assert "https://" not in script.text
    browser.cookies.set("exchange_language", "en")
    assert '"language": "en-US"' in browser.get("/viewer/config.js").text


def test_a_reader_s_session_is_known(browser: TestClient) -> None:
    assert browser.get("/viewer/session", headers=SAME).status_code == 401
    browser.post("/portal/sign-in", data={"name": "zhang", "password": PASSWORD}, headers=SAME)

    assert browser.get("/viewer/session", headers=SAME).status_code == 204
    elsewhere = browser.get("/viewer/session", headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 401
    found = browser.get("/viewer/dicom-web/studies?PatientID=none", headers=SAME)
    assert found.status_code == 204


def test_an_exchange_without_the_viewer_says_so(city: Region, tmp_path: Path) -> None:
    with opened(application(city, tmp_path)) as browser:
        browser.post("/portal/sign-in", data={"name": "zhang", "password": PASSWORD}, headers=SAME)
        answer = browser.get("/viewer/viewer?StudyInstanceUIDs=1.2")

    assert answer.status_code == 404
    assert "影像浏览器尚未安装" in answer.text
