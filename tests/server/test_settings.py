"""What an operator sets, where, and how mistakes are told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from pydantic import SecretStr, ValidationError
from pydantic_core import PydanticUndefined

from exchange.errors import Invalid
from exchange_server import composition, nodes
from exchange_server.chinese import translated
from exchange_server.cli import _announce
from exchange_server.settings import Settings, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXCHANGE_DATA", str(tmp_path))
    monkeypatch.delenv("EXCHANGE_CONFIG", raising=False)


def test_a_variable_comes_before_the_file_and_the_file_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "exchange.toml").write_text('http_port = 9001\nae_title = "CITY"\n')
    monkeypatch.setenv("EXCHANGE_HTTP_PORT", "9002")
    told = load()
    assert (told.http_port, told.ae_title, told.dimse_port) == (9002, "CITY", 11112)


def test_the_file_can_lie_elsewhere_and_name_the_data_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "etc.toml"
    file.write_text('data = "/srv/images"\nhttp_addresses = ["0.0.0.0", "::"]\n')
    monkeypatch.delenv("EXCHANGE_DATA")
    monkeypatch.setenv("EXCHANGE_CONFIG", str(file))
    told = load()
    assert told.database == "sqlite:////srv/images/index.sqlite"
    assert told.http_addresses == ("0.0.0.0", "::")  # noqa: S104
    assert told.http_url == "http://localhost:8080"


def test_a_file_that_is_named_and_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_CONFIG", "/nowhere/exchange.toml")
    with pytest.raises(Invalid, match="/nowhere/"):
        load()


def test_several_values_stand_in_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_HTTP_ADDRESSES", "10.0.0.1, fd00::1")
    monkeypatch.setenv("EXCHANGE_METRICS_FROM", "10.0.0.0/8")
    told = load()
    assert told.http_addresses == ("10.0.0.1", "fd00::1")
    assert [str(one) for one in told.metrics_networks] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("http_prot = 1", "EXCHANGE_HTTP_PROT"),
        ("http_port = 70000", "EXCHANGE_HTTP_PORT"),
        ('timezone = "Mars/Olympus"', "IANA"),
        ('object_store = "s3"', "s3_endpoint"),
        ('http_tls_certificate = "c.pem"', "belong together"),
        ('public_url = "https://example.cn/path"', "only scheme, host and port"),
        ('ae_title = "SEVENTEEN LETTERS"', "EXCHANGE_AE_TITLE"),
        ("token_lifetime = 86400", "EXCHANGE_TOKEN_LIFETIME"),
        ("http_port = ", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "exchange.toml").write_text(f"{line}\n")
    with pytest.raises(Invalid, match=told):
        load()


def test_whatever_is_wrong_with_a_setting_is_told_in_chinese_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nonsense = ("", "x", "-1", "0", "70000", "1e99", "1.5", "ftp://x", "https://u:p@h/x")
    told = []
    for name in Settings.model_fields.keys() - {"data"}:
        for value in nonsense:
            with monkeypatch.context() as given:
                given.setenv(f"EXCHANGE_{name.upper()}", value)
                told += refused()
    assert "EXCHANGE_DIMSE_PORT：不得大于 65535" in told
    monkeypatch.setenv("EXCHANGE_HTTP_PORT", "70000")
    monkeypatch.setenv("EXCHANGE_DIMSE_PORT", "x")
    assert refused() == ["EXCHANGE_DIMSE_PORT：须为整数；EXCHANGE_HTTP_PORT：不得大于 65535"]
    english = re.compile(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}")
    assert [one for one in told if english.search(one) or "Input" in one] == []


def refused() -> list[str]:
    """What an operator reads of the settings, where they are wrong."""
    try:
        load()
    except Invalid as error:
        return [translated(str(error))]
    return []


def test_no_error_shows_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "exchange.toml").write_text('object_store = "s3"\ns3_endpoint = "s3:9000"\n')
    monkeypatch.setenv("EXCHANGE_S3_SECRET_KEY", "geheim")
    monkeypatch.setenv("EXCHANGE_DATABASE_URL", "postgresql://exchange:geheim@db/exchange")
    with pytest.raises(Invalid) as refused:
        load()
    assert "geheim" not in str(refused.value)
    monkeypatch.setenv("EXCHANGE_S3_ACCESS_KEY", "exchange")
    assert "geheim" not in repr(load())


def test_every_setting_is_described_and_none_is_a_secret_by_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.default is not PydanticUndefined and isinstance(field.default, SecretStr):
            assert field.default.get_secret_value() == "", name


def test_nobody_outside_is_served_unless_it_was_set() -> None:
    told = load()
    assert set(told.http_addresses) | set(told.dimse_addresses) <= {"127.0.0.1", "::1"}


def test_a_malformed_bucket_is_told_in_words(tmp_path: Path) -> None:
    wrong = Settings(
        data=tmp_path,
        object_store="s3",
        s3_endpoint="127.0.0.1:1",
        s3_access_key="key",
        s3_secret_key=SecretStr("secret"),
        s3_bucket="x",
        s3_secure=False,
    )

    with pytest.raises(Invalid, match="S3"):
        composition.open_store(wrong)


@pytest.mark.parametrize("asked", [True, False])
def test_a_node_that_asks_for_no_certificate_says_whom_it_cannot_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: bool
) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("node")
    given = Settings(
        dimse_tls_certificate=own.certificate,
        dimse_tls_key=own.key,
        dimse_tls_client_ca=authority.certificate if asked else None,
        dimse_tls_anonymous=not asked,
    )
    assert nodes.dimse_tls(given) is not None
    assert ("dimse_tls_client_ca is not set" in caplog.text) is not asked


TLS = {
    "dimse_tls_certificate": "node.pem",
    "dimse_tls_key": "node.key",
    "dimse_tls_client_ca": "ca.pem",
}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, ["dicom://EXCHANGE@127.0.0.1:11112"]),
        (TLS, ["dicom-tls://EXCHANGE@127.0.0.1:11112"]),
        (
            TLS | {"dimse_tls_port": 2762},
            ["dicom://EXCHANGE@127.0.0.1:11112", "dicom-tls://EXCHANGE@127.0.0.1:2762"],
        ),
        ({"node_processes": 0}, []),
    ],
)
def test_an_exchange_that_is_ready_names_each_port_it_listens_at(
    given: dict[str, Any], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = {"dimse_addresses": ["127.0.0.1"], "http_addresses": ["127.0.0.1"]}
    named = Settings.model_validate(local | given)
    _announce(named, tmp_path / "ready.json")
    ready, http, *dicom = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (ready, http, dicom) == ("READY", "http://127.0.0.1:8080", told)
    assert json.loads((tmp_path / "ready.json").read_text())["dicom"] == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "dimse_tls_certificate needs dimse_tls_client_ca, or else dimse_tls_anonymous"),
        ({"dimse_tls_crl": "lists.crl"}, "dimse_tls_crl needs dimse_tls_client_ca"),
        (
            {"dimse_tls_certificate": None, "dimse_tls_key": None, "dimse_tls_port": 2762},
            "dimse_tls_port needs dimse_tls_certificate",
        ),
        (
            {"dimse_tls_client_ca": "ca.pem", "dimse_tls_anonymous": "true"},
            "dimse_tls_anonymous is for TLS without dimse_tls_client_ca",
        ),
    ],
)
def test_a_node_over_tls_asks_for_certificates_unless_it_is_told_not_to(
    given: dict[str, str], told: str
) -> None:
    own = {"dimse_tls_certificate": "node.pem", "dimse_tls_key": "node.key"}
    with pytest.raises(ValidationError, match=told):
        Settings.model_validate(own | given)
