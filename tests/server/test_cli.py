"""What an operator types, and what is answered: each command once as it should be, and refused."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import ready
from certificates import Authority
from pydicom.data import get_testdata_file
from real_parts import free_ports
from sqlalchemy import text
from typer import rich_utils

from exchange import jobs, users
from exchange.access import Exchange
from exchange_server import usage
from exchange_server.cli import main
from exchange_server.composition import open_exchange, tokens, worker
from exchange_server.nodes import dicom_nodes
from exchange_server.settings import load

NORTH = ("--name", "北城医院", "--credit-code", "123502004266007916", "--issuer", "2.25.1")
CT = Path(str(get_testdata_file("CT_small.dcm")))
CT_PATIENT = "1CT1"
CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a data directory of its own; returns status, stdout and stderr."""
    http, dimse = free_ports(2)
    for name, value in {
        "DATA": str(tmp_path / "data"),
        "HTTP_PORT": str(http),
        "DIMSE_PORT": str(dimse),
        "DIMSE_ADDRESSES": "127.0.0.1",
        "LANGUAGE": "en",
    }.items():
        monkeypatch.setenv(f"EXCHANGE_{name}", value)

    def typed(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return typed


@contextmanager
def working() -> Iterator[None]:
    """A worker works meanwhile."""
    ended = threading.Event()

    def work() -> None:
        with exchange() as opened:
            worker(opened, load()).run(ended)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def city(run: Run) -> Run:
    """The same, after `init` and with hospital `north`, whose PACS calls from loopback."""
    ready.sqlite(load().data / "index.sqlite")
    assert run("init")[0] == 0
    assert run("organization", "add", "north", *NORTH, "--ae", "PACS@127.0.0.1:104")[0] == 0
    return run


@contextmanager
def exchange() -> Iterator[Exchange]:
    opened = open_exchange(load())
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def node(city: Run) -> Iterator[str]:
    """A running node of the exchange; its address."""
    with exchange() as opened:
        (acceptor,) = dicom_nodes(opened, load(), tokens(load()))
        thread = threading.Thread(target=acceptor.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{load().dimse_port}"
        finally:
            acceptor.stop(5)
            thread.join()


def test_init_shows_a_password_once_and_refuses_to_do_so_again(run: Run) -> None:
    status, out, err = run("init")
    name, password = out.rstrip("\n").split("\t")
    assert (status, name) == (0, "admin")
    assert len(password) >= 20
    assert password not in err
    status, out, err = run("init")
    assert (status, out) == (1, "")
    assert "set up already" in err


def test_its_name_and_version_are_told_before_anything_is_set_up(run: Run) -> None:
    released = version("imaging-exchange")
    assert run("--version") == (0, f"imaging-exchange {released}\n", "")
    assert "--version" in run("--help")[1]


def test_before_init_every_command_says_what_to_do(run: Run) -> None:
    for command in (("organization", "list"), ("serve",), ("check",), ("token", "admin")):
        status, out, err = run(*command)
        assert (status, out) == (1, "")
        assert "run `exchange init`" in err


def test_hospitals_are_registered_and_listed(city: Run) -> None:
    assert city("organization", "list") == (
        0,
        "north\t北城医院\t123502004266007916\t2.25.1\tyes\tyes\tPACS@127.0.0.1:104\tnone\tnone\tlog\n",
        "",
    )
    status, _, err = city("organization", "add", "south", *NORTH)
    assert (status, err) == (1, "Error: the code, credit code or issuer is that of north\n")
    status, _, err = city("organization", "add", "south", *NORTH, "--ae", "nonsense")
    assert (status, "TITLE@address" in err) == (1, True)


def test_users_are_registered_with_a_password_of_theirs_or_a_new_one(city: Run) -> None:
    added = ("user", "add", "zhang", "--organization", "north")
    status, out, _ = city(*added, "--password-stdin", stdin="correct horse\n")
    assert (status, out) == (0, "")
    status, out, _ = city("user", "add", "li", "--role", "system", "--organization", "north")
    assert (status, out.split("\t")[0]) == (0, "li")
    assert city("user", "add", "wang")[2] == "Error: a clinician belongs to an organization\n"
    status, _, err = city(*added, "--password-stdin", stdin="short\n")
    assert (status, "10 to 256" in err) == (1, True)

    assert city("user", "deactivate", "li")[0] == 0
    _, out, _ = city("user", "list")
    told = {line.split("\t")[0]: line.split("\t")[2:] for line in out.splitlines()}
    assert told["li"] == ["system", "north", "no", "no"]
    assert told["zhang"] == ["clinician", "north", "yes", "no"]
    assert told["admin"] == ["administrator", "", "yes", "no"]


def test_a_misspelt_setting_is_told_with_the_one_that_is_meant(
    city: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCHANGE_DATABSE_URL", "postgresql://secret")
    monkeypatch.setenv("EXCHANGE_NONSENSE", "1")
    status, _, err = city("organization", "list")
    assert (status, err.splitlines()) == (
        0,
        [
            "Warning: EXCHANGE_DATABSE_URL is no setting; is EXCHANGE_DATABASE_URL meant?",
            "Warning: EXCHANGE_NONSENSE is no setting",
        ],
    )


def test_it_is_said_what_the_fingerprint_of_a_certificate_means(
    city: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known_by = f"CT1@10.1.0.5#{'ab' * 32}"
    assert "asks nobody for one" in city("organization", "add-ae", "north", known_by)[2]
    assert city("organization", "add-ae", "north", "CT2@10.1.0.6")[2] == "Registered CT2@10.1.0.6\n"
    authority = Authority(tmp_path)
    own = authority.issue("node")
    for name, path in {
        "CERTIFICATE": own.certificate, "KEY": own.key, "CLIENT_CA": authority.certificate
    }.items():  # fmt: skip
        monkeypatch.setenv(f"EXCHANGE_DIMSE_TLS_{name}", str(path))
    told = city("organization", "add-ae", "north", "CT3@10.1.0.7")[2]
    assert "No certificate fingerprint: whoever calls from that address" in told
    assert "TITLE@ADDRESS#SHA256" in told
    registered = f"Registered {known_by}\n"
    assert city("organization", "add-ae", "north", known_by, "--replace")[2] == registered


def test_processes_that_run_apart_have_what_serve_does_for_its_own(city: Run) -> None:
    with exchange() as opened:
        opened.database.take_back("0035")
    assert city("migrate")[2] == "The index is that of this release\n"
    with exchange() as opened:
        found, wanted = opened.database.revision()
        assert found == wanted
    for status in ("going-down", "restarted"):
        assert city("announce", status)[0] == 0
    assert city("announce", "asleep")[0] == 2


def test_a_node_of_quality_staff_is_listed_as_such(city: Run) -> None:
    assert city("organization", "add-ae", "north", "QC@10.1.0.9", "--rejected")[0] == 0
    assert "QC@10.1.0.9(rejected)" in city("organization", "list")[1]
    assert city("organization", "user-identity", "north", "require")[2] == "north: require\n"
    named = city("organization", "issuer-names", "north", "HIS", "PACS 2")
    assert named[2] == "Issuer names of north: HIS, PACS 2\n"
    assert city("organization", "issuer-names", "north")[:2] == (0, "north\tHIS\nnorth\tPACS 2\n")
    for odd in (["none"], ["HIS", "--none"]):  # nobody takes all away, or is called so, by mistake
        assert city("organization", "issuer-names", "north", *odd)[0] == 2
    assert city("organization", "issuer-names", "north")[1].count("\n") == 2
    taken = city("organization", "issuer-names", "north", "--none")
    assert taken[2] == "north has no issuer names any more\n"
    assert city("organization", "issuer-names", "north") == (0, "", "")


def test_systems_of_a_hospital_come_and_go(city: Run) -> None:
    def listed() -> str:
        return city("organization", "list")[1].split("\t")[6]

    assert city("organization", "add-ae", "north", "CT1@10.1.0.0/16:104")[0] == 0
    assert listed() == "CT1@10.1.0.0/16:104 PACS@127.0.0.1:104"
    status, _, err = city("organization", "add-ae", "north", "CT2@10.2.0.0/99")
    assert (status, "an address is" in err) == (1, True)
    assert city("organization", "remove-ae", "north", "CT1@10.1.0.0/16")[0] == 0
    assert listed() == "PACS@127.0.0.1:104"
    status, _, err = city("organization", "remove-ae", "north", "CT1@10.1.0.0/16")
    assert (status, "no such application entity" in err) == (1, True)
    assert "TITLE@address" in city("organization", "remove-ae", "north", "CT1")[2]
    told = ("--priors", "--availability")
    assert city("organization", "add-ae", "north", f"WS@10.1.0.6:104#{'ab' * 32}", *told)[0] == 0
    assert listed() == "PACS@127.0.0.1:104 WS@10.1.0.6:104#abababab…(priors,availability)"
    renewed = f"WS@10.1.0.6:105#{'cd' * 32}"
    assert "registered already" in city("organization", "add-ae", "north", renewed)[2]
    assert city("organization", "add-ae", "north", renewed, "--replace", "--priors")[0] == 0
    assert listed() == "PACS@127.0.0.1:104 WS@10.1.0.6:105#cdcdcdcd…(priors)"
    assert city("organization", "add-ae", "north", "WS@10.9.9.9:1", "--replace")[0] == 1


def test_a_registered_entity_is_changed_as_its_refusal_says(city: Run) -> None:
    told = city("organization", "add-ae", "north", "PACS@127.0.0.1:105")[2]
    assert "`exchange organization add-ae --replace` changes it" in told
    assert city("organization", "add-ae", "north", "PACS@127.0.0.1:105", "--replace")[0] == 0


def test_an_entity_of_another_hospital_is_removed_there_first(city: Run) -> None:
    assert city("organization", "add-ae", "north", "CT7@127.0.0.9")[0] == 0
    south = ("--name", "南城医院", "--credit-code", "91350100M000100Y43", "--issuer", "2.25.777")
    assert city("organization", "add", "south", *south)[0] == 0
    for more in ((), ("--replace",)):
        status, _, told = city("organization", "add-ae", "south", "CT7@127.0.0.9", *more)
        assert status == 1
        if not more:
            assert "CT7 at 127.0.0.9 is that of north" in told
            assert "`exchange organization remove-ae north CT7@127.0.0.9` comes first" in told
    assert city("organization", "remove-ae", "north", "CT7@127.0.0.9")[0] == 0
    assert city("organization", "add-ae", "south", "CT7@127.0.0.9")[0] == 0


def test_only_roles_that_sign_in_are_offered(city: Run) -> None:
    status, _, err = city("user", "add", "night", "--role", "exchange")
    assert (status, "guest" in err) == (2, False)


def test_the_commands_of_the_dicom_client_say_what_to_do(
    node: str, city: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    us = ("--calling", "PACS")
    nothing = city("send", node, str(tmp_path / "empty"), *us)
    assert nothing == (1, "", "Error: there is no DICOM file\n")
    assert "--calling says who we are" in city("echo", node, "--calling", "NOBODY")[2]
    assert "--called says whom we mean" in city("echo", node, *us, "--called", "OTHER")[2]
    assert "a key is written KEYWORD" in city("query", node, *us, "-k", "")[2]
    assert city("commit", node, str(CT), *us, "--listen", "99999")[0] == 2
    assert city("commit", node, str(CT), *us, "--wait", "-5")[0] == 2
    assert city("send", node, str(CT), *us)[0] == 0
    waited = city("commit", node, str(CT), *us, "--wait", "0.5")  # no worker brings a report
    assert (waited[0], "--listen PORT waits there" in waited[2]) == (1, True)
    got = ("-k", f"StudyInstanceUID={CT_STUDY}")
    refused = city("get", node, "/proc", *us, *got)
    assert (refused[0], "/proc cannot be written into" in refused[2]) == (1, True)
    monkeypatch.setenv("EXCHANGE_LANGUAGE", "zh")
    assert "用 --calling 给出" in city("echo", node, "--calling", "NOBODY")[2]


def test_what_does_not_speak_dicom_is_told(city: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            connection, _ = web.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1 << 16)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        told = city("echo", f"127.0.0.1:{web.getsockname()[1]}")[2]
        thread.join()
    assert "what answers does not speak DICOM" in told


@pytest.mark.parametrize(
    ("typed", "chinese"),
    [
        (("organisation",), "没有命令 'organisation'。是否为 'organization'？"),
        (("organization", "limit"), "缺少参数 'code'。"),
        (("organization", "limit", "north", "--rate", "many"), "须为数字或 none"),
        (("organization", "user-identity", "north", "maybe"), "'maybe' 不在可选值之列"),
        (("organization", "user-identity", "north"), "可选："),
        (("audit", "list", "--limit", "0"), "'--limit' 的值无效：不得小于 1"),
        (("audit", "list", "--limit", "x"), "须为整数"),
        (("audit", "list", "--nonsense"), "没有选项 --nonsense"),
        (("audit", "list", "nonsense"), "多余的参数：nonsense"),
        (("audit", "list", "--study"), "选项 '--study' 须带值。"),
        (("user", "change", "li"), "缺少选项 '--rejected'"),
        (("send", "127.0.0.1:1", "/nonexistent"), "路径 '/nonexistent' 不存在。"),
        (("get", "127.0.0.1:1", "/nonexistent"), "文件夹 '/nonexistent' 不存在。"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_told_in_chinese_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], chinese: str
) -> None:
    monkeypatch.setenv("EXCHANGE_LANGUAGE", "zh")
    for name in usage.HEADINGS:
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    status, out, err = run(*typed)
    assert (status, out) == (2, "")
    assert chinese in err.replace("│\n│ ", "")
    assert "错误" in err


def test_help_speaks_chinese_of_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_LANGUAGE", "zh")
    for name in usage.HEADINGS:
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    for typed in (("--help",), ("order", "--help"), ("order", "list", "--help")):
        status, out, _ = run(*typed)
        assert (status, "显示此帮助" in out, "Show this" in out) == (0, True, False)


def test_a_hospital_leaves_the_agreement_and_joins_again(city: Run) -> None:
    def shares() -> str:
        return city("organization", "list")[1].split("\t")[4]

    assert city("organization", "unshare", "north")[0] == 0
    assert shares() == "no"
    assert city("organization", "unshare", "north")[0] == 1
    assert city("organization", "share", "north")[0] == 0
    assert shares() == "yes"
    assert city("organization", "share", "north")[0] == 1
    assert "has this code" in city("organization", "share", "nowhere")[2]


def test_a_limit_of_a_hospital_stays_until_it_is_changed_or_taken_away(city: Run) -> None:
    def shown() -> str:
        status, out, err = city("organization", "limit", "north")
        assert (status, err) == (0, "")
        assert city("organization", "list")[1].split("\t")[7:9] == out.rstrip("\n").split("\t")[1:]
        return out

    limit = ("organization", "limit", "north")
    assert shown() == "north\tnone\tnone\n"
    assert city(*limit, "--associations", "4", "--rate", "50")[0] == 0
    assert shown() == "north\t4\t50\n"
    assert city(*limit, "--rate", "20") == (0, "", "The limits of north are set\n")
    assert shown() == "north\t4\t20\n"
    assert city(*limit, "--associations", "none")[0] == 0
    assert shown() == "north\tnone\t20\n"
    assert city(*limit, "--rate", "0")[::2] == (1, "Error: a limit is a number from 1 to 999999\n")
    assert city(*limit, "--rate", "many")[0] == 2
    assert "has this code" in city("organization", "limit", "nowhere")[2]
    assert shown() == "north\tnone\t20\n"


def test_a_hospital_is_stopped_with_its_users_and_takes_part_again(city: Run) -> None:
    added = ("user", "add", "zhang", "--organization", "north", "--password-stdin")
    assert city(*added, stdin="correct horse\n")[0] == 0

    def told() -> tuple[str, str, int]:
        hospital = city("organization", "list")[1].split("\t")
        (zhang,) = [one for one in city("user", "list")[1].splitlines() if "zhang" in one]
        return hospital[5], zhang.split("\t")[4], city("token", "zhang")[0]

    assert told() == ("yes", "yes", 0)
    assert city("organization", "deactivate", "north") == (0, "", "north is stopped\n")
    assert told() == ("no", "no", 1)
    assert city("organization", "activate", "north") == (0, "", "north takes part again\n")
    assert told() == ("yes", "yes", 0)
    assert "has this code" in city("organization", "deactivate", "nowhere")[2]


def test_users_are_stopped_and_given_another_password(city: Run) -> None:
    assert city("user", "deactivate", "admin")[0] == 0
    assert "no active user" in city("token", "admin")[2]
    assert city("user", "activate", "admin")[0] == 0
    assert city("token", "admin")[0] == 0
    status, out, err = city("user", "password", "admin")
    name, password = out.rstrip("\n").split("\t")
    assert (status, name, password in err) == (0, "admin", False)
    assert city("user", "password", "admin", "--password-stdin", stdin="correct horse\n")[1] == ""
    with exchange() as opened, opened.database.reading() as session:
        assert users.authenticate(session, "admin", "correct horse").name == "admin"
    for command in ("deactivate", "activate", "password"):
        assert city("user", command, "nobody") == (1, "", "Error: no user has this name\n")


def test_a_token_is_all_that_is_printed(city: Run) -> None:
    status, out, err = city("token", "admin", "--lifetime", "60")
    assert (status, out.count("."), out.count("\n"), err) == (0, 2, 1, "")
    assert city("token", "nobody")[0] == 1
    assert city("token", "admin", "--lifetime", "999999")[0] == 1
    before = set((load().keys / "tokens").iterdir())
    assert city("keys", "rotate")[0] == 0
    assert len(set((load().keys / "tokens").iterdir()) - before) == 1


def test_images_are_sent_as_they_are_and_found(node: str, city: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "ct.dcm").write_bytes(CT.read_bytes())
    status, out, err = city("send", node, str(tmp_path), "--calling", "PACS")
    assert (status, out, err) == (0, "", "1 sent, 0 failed\n")
    status, out, _ = city(
        "query", node, "-k", f"PatientID={CT_PATIENT}", "--level", "patient", "--calling", "PACS"
    )
    assert (status, out.split("\t")[0]) == (0, CT_PATIENT)
    assert city("query", node, "-k", "PatientID=none", "--calling", "PACS") == (0, "", "")


def test_what_was_not_sent_is_named_with_the_reason(node: str, city: Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not an image")
    status, out, err = city("send", node, str(CT), str(notes), "--calling", "PACS")
    assert (status, out) == (1, f"{notes}\tis not a DICOM file\n")
    assert err == "1 sent, 1 failed\n"
    status, _, err = city("send", node, str(CT), "--calling", "STRANGER")
    assert (status, "rejected" in err) == (1, True)
    free = free_ports(1)[0]
    assert "does not answer" in city("send", f"127.0.0.1:{free}", str(CT))[2]
    assert "host:port" in city("send", "127.0.0.1", str(CT))[2]


def test_a_wrong_question_is_refused(node: str, city: Run) -> None:
    asked = ("query", node, "--calling", "PACS")
    assert "PS3.6" in city(*asked, "-k", "PatientIdentity=1")[2]
    assert "level is" in city(*asked, "--level", "hospital")[2]
    status, _, err = city(*asked, "-k", "StudyDate=yesterday")
    assert (status, "A900" in err) == (1, True)


def test_consent_is_recorded_for_patients_who_are_known(node: str, city: Run) -> None:
    city("send", node, str(CT), "--calling", "PACS")
    whose = ("--organization", "north", "--patient")
    assert city("consent", "deny", *whose, CT_PATIENT)[0] == 0
    assert city("consent", "permit", *whose, CT_PATIENT)[0] == 0
    status, _, err = city("consent", "deny", *whose, "404")
    assert (status, "no patient with this number" in err) == (1, True)


def test_the_trail_is_listed_and_proven_until_somebody_edits_it(city: Run) -> None:
    assert city("audit", "verify")[0] == 0
    status, out, _ = city("audit", "list", "--limit", "2")
    assert (status, len(out.splitlines())) == (0, 2)
    with exchange() as opened, opened.database.writing() as session:
        edited = "UPDATE audit_record SET content = replace(content, 'north', 'south')"
        session.execute(text(f"{edited} WHERE sequence = 2"))
    status, out, err = city("audit", "verify")
    assert (status, out.split("\t")[0]) == (1, "2")
    assert err == "1 records are not as written\n"


def test_the_trail_tells_from_which_address_somebody_asked(node: str, city: Run) -> None:
    assert city("send", node, str(CT), "--calling", "PACS")[0] == 0
    (stored,) = [
        line.split("\t")
        for line in city("audit", "list", "--user", "PACS")[1].splitlines()
        if "store" in line.split("\t")
    ]
    assert stored[2:6] == ["PACS", "dimse", "store", "success"]
    assert stored[-1] == "127.0.0.1"


def test_the_store_is_checked_object_by_object(node: str, city: Run) -> None:
    city("send", node, str(CT), "--calling", "PACS")
    assert city("check")[0] == 0
    with exchange() as opened:
        opened.objects.put_down()
    (kept,) = (load().data / "objects/objects/studies").rglob("*.dcm")
    whole = kept.read_bytes()
    kept.chmod(0o600)
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert city("check", "--no-read")[0] == 0
    status, out, err = city("check")
    assert (status, "do not have the digest" in out) == (1, True)
    assert err == "1 objects are damaged\n"


def test_resources_are_indexed_anew_by_a_worker_and_checked(city: Run) -> None:
    assert city("reindex", "--no-wait")[2] == "A worker does it\n"
    with working():
        status, _, err = city("reindex")
    assert (status, err) == (0, "0 resources, of which 0 are found under something else now\n")
    assert city("check", "--resources", "all")[0] == 0


def test_a_hospitals_records_are_written_out_followed_listed_and_called_off(
    node: str, city: Run, tmp_path: Path
) -> None:
    city("send", node, str(CT), "--calling", "PACS")
    to = tmp_path / "out"
    export = ("export", "start", "--organization", "north", "--type", "Patient")
    with working():
        status, _, err = city(*export, "--type", "ImagingStudy", "--to", str(to))
    assert (status, err) == (0, "Export 1: 2 resources in 2 files\n")
    (patient, study) = sorted(path.read_text() for path in to.iterdir())
    assert '"resourceType":"ImagingStudy"' in study + patient

    assert city(*export, "--no-wait")[2] == "Export 2: a worker does it\n"
    rows = [line.split("\t") for line in city("export", "list")[1].splitlines()]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("2", "north", "working"),
        ("1", "north", "complete"),
    ]
    assert city("export", "cancel", "2")[0] == 0
    assert city("export", "show", "2")[1].split("\t")[4] == "cancelled"
    assert city("export", "cancel", "2")[0] == city("export", "show", "9")[0] == 1
    assert city(*export, "--type", "Colour")[0] == 1
    assert city("export", "start", "--organization", "nowhere")[0] == 1


def test_jobs_are_counted_and_retried(node: str, city: Run) -> None:
    city("send", node, str(CT), "--calling", "PACS")
    kinds = {line.split("\t")[1] for line in city("job", "list")[1].splitlines()}
    assert kinds == {jobs.IDENTIFY, jobs.REFRESH}  # the patient has other numbers too
    with exchange() as opened:
        one = worker(opened, load())
        while one.run_once():
            pass
        with opened.database.writing() as session:
            session.execute(text("UPDATE job SET dead = true, last_error = 'ValueError at x.py:1'"))
    assert "given up\tValueError at x.py:1" in city("job", "list")[1]
    listed = json.loads(city("job", "list", "--json")[1])
    assert {one["last_error"] for one in listed["given_up"]} == {"ValueError at x.py:1"}
    assert [one["given_up"] for one in listed["backlog"]] == [True] * len(listed["backlog"])
    assert city("job", "retry")[0] == 0
    assert "given up" not in city("job", "list")[1]
    assert city("job", "retry", "4711")[0] == 1


def test_a_port_that_is_taken_is_told(node: str, city: Run) -> None:
    with exchange() as opened, pytest.raises(Exception, match=r"cannot listen on port \d+"):
        dicom_nodes(opened, load(), tokens(load()))


def test_people_are_spoken_to_in_chinese_unless_they_read_english(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXCHANGE_LANGUAGE")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run("check")[2].startswith("错误：")
    monkeypatch.setenv("LC_ALL", "en_GB.UTF-8")
    assert run("check")[2].startswith("Error: ")
