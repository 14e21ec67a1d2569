"""An operator is spoken to in Chinese, in what refuses too, and told the next step."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from exchange import policy
from exchange.errors import ExchangeError
from exchange_dicom.pdu import RejectReason
from exchange_dicom.states import REJECT_REASONS, REJECT_SOURCES
from exchange_server.chinese import TEXTS, translated
from exchange_server.portal import audit

ROOT = Path(__file__).parents[2]
VERBS = (
    "access",
    "audit",
    "conflicts",
    "consent",
    "deliveries",
    "destruction",
    "discrepancies",
    "dossier",
    "exports",
    "ledger",
    "orders",
    "operation",
    "organizations",
    "patient_links",
    "people",
    "query",
    "rejection",
    "retention",
    "routing",
    "sessions",
    "shares",
    "subscriptions",
    "timeline",
    "traffic",
    "trail",
    "users",
)
"""Rooms of the exchange floor whose verbs are commands."""
COMMANDS = sorted((ROOT / "exchange/exchange_server").glob("cli*.py"))
OTHERS = [
    ROOT / "exchange/exchange_server" / f"{name}.py"
    for name in ("composition", "keys", "passwords", "roles", "settings")
]
MODULES = [
    *(ROOT / "exchange/exchange" / f"{verb}.py" for verb in VERBS),
    *COMMANDS,
    *OTHERS,
    *sorted((ROOT / "exchange/exchange_server/portal").glob("*.py")),
    ROOT / "dicom/exchange_dicom/scu.py",
    ROOT / "dicom/exchange_dicom/scu_commitment.py",
]
ERRORS = {error.__name__ for error in ExchangeError.__subclasses__()} | {"Deny"}
"""What says no, and a page or a command passes it on."""


def messages(source: str) -> set[str]:
    """What the code raises, with ``{}`` for what differs; what it only passes on is left out."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(text)), *_]):
                if name in ERRORS:
                    found.add(text)
            case ast.Call(func=ast.Name(id=name), args=[ast.JoinedStr(values=parts), *_]):
                if name in ERRORS:
                    found.add(
                        "".join(
                            str(part.value) if isinstance(part, ast.Constant) else "{}"
                            for part in parts
                        )
                    )
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_every_message_of_a_command_has_its_chinese(module: Path) -> None:
    assert sorted(messages(module.read_text("utf-8")) - TEXTS.keys()) == []


@pytest.mark.parametrize("decision", [policy.may, policy.decide, policy.decide_clinical])
def test_every_reason_of_a_decision_has_its_chinese(decision: Callable[..., object]) -> None:
    assert sorted(messages(inspect.getsource(decision)) - TEXTS.keys()) == []


def test_every_reason_of_a_rejection_has_its_chinese() -> None:
    assert set(REJECT_REASONS) == set(RejectReason)
    assert {reason.value[0] for reason in RejectReason} == set(REJECT_SOURCES)
    told = {*REJECT_REASONS.values(), *REJECT_SOURCES.values()}
    assert sorted(told - TEXTS.keys()) == []


def test_roles_actions_and_purposes_are_called_by_their_names_on_the_page_of_the_trail() -> None:
    assert (set(audit.ACTIONS), set(audit.ROLES), set(audit.PURPOSES)) == (
        set(policy.Action),
        set(policy.Role),
        set(policy.Purpose),
    )
    assert sorted(({*policy.Action, *policy.Role} - {policy.Role.EXCHANGE}) - TEXTS.keys()) == []


def test_a_translation_says_as_much_as_the_english() -> None:
    for english, chinese in TEXTS.items():
        assert english.count("{}") == chinese.count("{}"), english
        assert [word for word in chinese.split("`")[1::2] if word.startswith("exchange")] == [
            word.replace("CODE", "代码").replace("ADDRESS", "地址").replace("PORT", "端口")
            for word in english.split("`")[1::2]
            if word.startswith("exchange")
        ] or "`" not in english, english


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("no user has this name", "没有此用户"),
        ("a study is kept 1 to 36500 days", "保存天数为 1 至 36500 天"),
        (
            "the study belongs to another patient: keep or discard it",
            "该检查属于另一位患者；请选择 keep 或 discard",
        ),
        (
            "Unanswered: WS@10.1.0.5:104 does not answer: Connection refused",
            "无应答：WS@10.1.0.5:104 没有应答：Connection refused",
        ),
        (
            "Rejected: the node rejected the association (permanent, by its service-user): "
            "calling AE title not recognized; ours has to be registered there",
            "被拒绝：对方节点拒绝了连接（永久，由应用（service-user））："
            "不认识主叫 AE Title；请对方登记本方的 AE Title",
        ),
        ("something that nobody translated", "something that nobody translated"),
    ],
)
def test_what_a_message_quotes_is_translated_too(english: str, chinese: str) -> None:
    assert translated(english) == chinese
