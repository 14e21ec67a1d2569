"""An operator of routes, rejections, retention and the ledger: commands as they are typed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ready
from real_parts import free_ports
from region import Region

from exchange import rejection
from exchange_server.cli import main
from exchange_server.composition import open_exchange
from exchange_server.settings import load

BEICHENG = ("--name", "北城医院", "--credit-code", "123502004266007916", "--issuer", "2.25.1")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def city(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a command in a data directory that has hospital `bc`; returns status, stdout, stderr."""
    http, dimse = free_ports(2)
    for name, value in {
        "DATA": str(tmp_path / "data"),
        "HTTP_PORT": str(http),
        "DIMSE_PORT": str(dimse),
        "LANGUAGE": "zh",
    }.items():
        monkeypatch.setenv(f"EXCHANGE_{name}", value)

    def typed(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    ready.sqlite(load().data / "index.sqlite")
    assert typed("init")[0] == 0
    assert typed("organization", "add", "bc", *BEICHENG, "--ae", "WS@127.0.0.1:104")[0] == 0
    return typed


def test_a_route_is_made_listed_and_removed(city: Run) -> None:
    of = ("--organization", "bc")
    assert city("route", "add", "r", *of, "--to", "WS", "--modality", "ct, mr")[0] == 0
    assert city("route", "list") == (0, "bc\tr\tbc:WS\tCT,MR\t0\t0\t0\t0\t0\n", "")
    assert city("route", "waiting") == (0, "", "")
    assert city("route", "waiting", "--json") == (0, "[]\n", "")
    assert city("commitment", "list", "--json") == (0, "[]\n", "")
    assert city("route", "retry")[2] == "将重试 0 个转发\n"
    status, _, err = city("organization", "remove-ae", "bc", "WS@127.0.0.1")
    assert (status, err) == (
        1,
        "错误：有转发规则指向它：r of bc；请先 `exchange route remove`\n",
    )
    assert city("route", "remove", "r", *of)[0] == 0
    assert city("organization", "remove-ae", "bc", "WS@127.0.0.1")[0] == 0


@pytest.mark.parametrize(
    ("command", "next_step"),
    [
        ("route add r --organization bc", "--to"),
        ("route add r --organization bc --to X", "add-ae"),
        ("route add r --organization bc --to WS --hours 08:00-08:00", "HH:MM-HH:MM"),
        ("route add r --organization bc --url http://a:b@c/", "EXCHANGE_DICOMWEB_NETRC"),
        ("route add r --organization nowhere --to WS", "exchange organization list"),
        ("route remove r --organization bc", "exchange route list"),
        ("route retry 7", "exchange route waiting"),
        ("conflict show 7", "exchange conflict list"),
        ("conflict promote 7", "exchange conflict list"),
        ("discrepancy same 7", "exchange discrepancy list"),
        ("reject --organization bc", "三者之一"),
        ("reject --organization bc --study 1.2 --code 113000", "113039"),
        ("reject --organization bc --study 1.2", "1.2"),
        ("restore --organization bc 1.2", "exchange rejected"),
        ("retention set --organization bc --days 0", "36500"),
        ("retention remove --organization bc", "exchange retention list"),
        ("hold place abc --reason x", "数字和点"),
        ("hold place 1.2 --reason ", "--reason"),
        ("hold lift 1.2", "exchange hold list"),
        ("ledger --organization nowhere", "exchange organization list"),
        ("ledger --date 2026", "YYYYMMDD"),
        ("ledger tell --organization bc --date 20261101", "实例数"),
        ("order cancel 7 --organization bc", "exchange order list"),
        (
            "order add --organization bc --accession A --patient P --modality CT "
            "--date 20261101 --id-card 1",
            "18 位",
        ),
        (
            "order add --organization bc --accession A --patient P --modality CT --date 20261301",
            "检查日期须为真实日期，写作 YYYYMMDD，如 20261130",
        ),
        (
            "order add --organization bc --accession B\\78 --patient P --modality CT "
            "--date 20261130",
            "检查号须为一行，且不含反斜杠",
        ),
        (
            "order add --organization bc --accession A --patient P --modality CT --date 20261130 "
            "--station TOOLONGSTATIONNAME",
            "设备 AE Title至多 16 个字符",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_chinese_with_the_next_step(
    city: Run, command: str, next_step: str
) -> None:
    status, out, err = city(*command.split(" "))
    assert (status, out) == (1, "")
    assert err.startswith("错误：")
    assert next_step in err
    assert err.count("\n") == 1


def test_rules_holds_and_rejections_are_listed(city: Run) -> None:
    assert (
        city("retention", "set", "--organization", "bc", "--modality", "ct", "--days", "9")[0] == 0
    )
    assert city("retention", "list") == (0, "bc\tCT\t9\n", "")
    assert city("retention", "run", "--delete")[2] == "已删除 0 个实例\n"
    assert city("hold", "place", "1.2.3", "--reason", "诉讼")[0] == 0
    assert city("hold", "list")[1].startswith("1.2.3\t诉讼\tcli:")
    assert city("rejected") == (0, "", "")
    assert city("scrub", "--list") == (0, "", "")
    assert city("scrub")[0] == 0


@contextmanager
def opened() -> Iterator[Region]:
    """The exchange of the commands, to which the hospital sends."""
    exchange = open_exchange(load())
    try:
        yield Region(exchange, {"beicheng": 1})
    finally:
        exchange.close()


def test_a_hold_on_what_nobody_has_sent_says_that_it_is_for_what_is_still_to_come(
    city: Run,
) -> None:
    asked = ("hold", "place", "1.2.1", "--reason", "诉讼")
    status, _, err = city(*asked)
    assert (status, "尚无任何内容" in err, "exchange hold lift 1.2.1" in err) == (0, True, True)
    with opened() as region:
        region.send("beicheng")
    assert city(*asked) == (0, "", "已保全\n")


def test_who_restores_is_told_what_that_still_needs(city: Run) -> None:
    note = rejection.Note("113001", (("1.2.1", "1.4.1"), ("1.2.1", "1.4.2"), ("1.2.1", "1.4.3")))
    with opened() as region:
        region.send("beicheng", instance="1.4.1", body=b"before")
        with region.exchange.on_behalf_of(region.system("beicheng")) as access:
            access.write(lambda session: rejection.apply(access, session, note, "1.9.1"))
        region.send("beicheng", instance="1.4.2", body=b"behind")
    restore = ("restore", "--organization", "bc")
    assert city(*restore, "1.4.1") == (0, "", "已恢复 1 个实例\n")
    status, _, err = city(*restore, "1.4.2")
    assert (status, err.count("\n"), "exchange conflict promote 1" in err) == (0, 1, True)
    assert "重新发送" in city(*restore, "1.4.3")[2]
    assert city("conflict", "promote", "1")[0] == 0


def test_whose_images_contradict_the_record_is_listed_and_said(city: Run) -> None:
    other = {"PatientName": "Zhao^Min", "PatientBirthDate": "19850505", "PatientSex": "M"}
    with opened() as region:
        region.send("beicheng")
        region.send("beicheng", study="1.2.2", instance="1.4.2", **other)  # type: ignore[arg-type]
    status, out, _ = city("discrepancy", "list")
    assert status == 0
    assert out.split("\t")[2:] == [
        "bc",
        "P1",
        "Wang^XiaoDong=王^小东 19491231 F",
        "Zhao^Min 19850505 M",
        "1.2.2\n",
    ]
    assert "exchange reject" in city("discrepancy", "another", "1")[2]
    assert city("discrepancy", "same", "1") == (0, "", "已确认为同一人\n")
    assert city("discrepancy", "list") == (0, "", "")


def test_the_ledger_takes_the_hospitals_count_and_lists_the_gap(city: Run) -> None:
    assert city("ledger", "--date", "20261101")[2] == ""
    told = ("--organization", "bc", "--date", "20261101", "--studies", "2")
    assert city("ledger", "tell", *told)[0] == 0
    status, out, err = city("ledger", "--date", "20261101")
    assert (status, out.split("\t")[-1], "--gaps" in err) == (0, "否\n", True)
    assert "少于院方计数" in city("ledger", "--date", "20261101", "--gaps")[1]
    answer = json.loads(city("ledger", "--date", "20261101", "--gaps", "--json")[1])
    assert [one["counts"] for one in answer["gaps"]] == ["studies: 0 of 2"]


def test_hosts_for_notifications_are_allowed_listed_and_taken_back(city: Run) -> None:
    assert city("subscription", "allow", "bc", "His.Example.cn:8443")[0] == 0
    assert city("subscription", "allow", "bc", "[fd00::5]:443")[0] == 0
    for wrong in ("http://x/", "0x7f.1", "2130706433", "a b", "x:99999", "", "user@x"):
        assert city("subscription", "allow", "bc", wrong)[0] == 1, wrong
    listed = "bc\t[fd00::5]:443\nbc\this.example.cn:8443\n"
    assert city("subscription", "hosts") == (0, listed, "")
    assert city("subscription", "disallow", "bc", "[fd00::5]:443")[0] == 0
    assert city("subscription", "disallow", "bc", "other")[2] == "错误：该医院没有登记此通知主机\n"
    assert city("subscription", "list") == (0, "", "")
    assert city("subscription", "retry")[2] == "将重试 0 个订阅\n"
    assert city("subscription", "retry", "5")[0] == 1
