"""What must stay true of the house itself is run, not asked for."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from exchange.errors import ExchangeError, Gone, UnknownPatient
from exchange_dicom import status
from exchange_storage.records import Record

ROOT = Path(__file__).parent.parent
ROOMS = [
    ROOT / "storage/exchange_storage",
    ROOT / "exchange/exchange",
    ROOT / "exchange/exchange_server",
    ROOT / "dicom/exchange_dicom",
    ROOT / "fhir/exchange_fhir",
]
MODULES = sorted(module for room in ROOMS for module in room.rglob("*.py"))
LONGEST = 700
NAMES_OF_NOTHING = {
    "service", "manager", "helper", "helpers", "util", "utils", "common", "base", "interfaces",
    "dto", "schemas", "crud",
}  # fmt: skip

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"), str(module))


def calls(module: Path, *methods: str) -> bool:
    """Whether the module calls one of the methods on anything."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in methods
        for node in ast.walk(tree(module))
    )


def is_protocol_or_its_heir(definition: Definition) -> bool:
    return isinstance(definition, ast.ClassDef) and bool(definition.bases)


def has_help(definition: Definition) -> bool:
    """Whether a decorator says it instead: the help of a command, in two languages."""
    return any(
        isinstance(decorator, ast.Call) and any(word.arg == "help" for word in decorator.keywords)
        for decorator in definition.decorator_list
    )


def public(body: list[ast.stmt], inside: str = "") -> list[tuple[str, Definition]]:
    """Public functions and classes, and the public methods of classes that inherit from none.

    What overrides is described where it was promised.
    """
    found: list[tuple[str, Definition]] = []
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found.append((inside + node.name, node))
            if isinstance(node, ast.ClassDef) and not is_protocol_or_its_heir(node):
                found += public(node.body, f"{node.name}.")
    return found


def test_only_the_gate_and_the_outbox_commit() -> None:
    committing = {name(module) for module in MODULES if calls(module, "writing", "commit")}

    assert committing <= {
        "exchange/exchange/access.py",
        "exchange/exchange/commits.py",
        "exchange/exchange/jobs.py",
        "exchange/exchange_server/worker.py",  # asks for its own checkpoints
        "storage/exchange_storage/carried.py",  # lets go of what it has put into the store
        "storage/exchange_storage/database.py",  # ends the transaction that one of these began
    }


def test_no_root_folder_is_a_package_and_no_folder_of_tests() -> None:
    roots = [ROOT / name for name in ("storage", "exchange", "dicom", "fhir", "deploy")]
    packages = [folder / "__init__.py" for folder in roots]
    packages += (ROOT / "tests").rglob("__init__.py")

    assert [name(made) for made in packages if made.exists()] == []


def test_every_error_has_an_answer_at_every_door() -> None:
    errors = set(ExchangeError.__subclasses__())
    outcome = importlib.import_module("exchange_fhir.outcome")

    assert set(status.DIMSE) == errors
    assert set(status.WEB) == errors
    # FHIR tells what was deleted from what never was, and where an unknown patient is named.
    assert set(outcome.HTTP) == errors | {Gone, UnknownPatient}


def test_every_error_stands_in_the_tree_of_its_docstring() -> None:
    documented = sys.modules[ExchangeError.__module__].__doc__ or ""

    assert all(error.__name__ in documented for error in ExchangeError.__subclasses__())


def test_every_setting_says_what_it_is_for() -> None:
    settings = importlib.import_module("exchange_server.settings")
    fields = settings.Settings.model_fields

    assert fields
    assert [name for name, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_says_what_it_is_in_one_sentence(module: Path) -> None:
    said = ast.get_docstring(tree(module))

    assert said, "no docstring"
    if "migrations/versions" not in name(module):
        first = said.partition("\n\n")[0]
        assert first.rstrip().endswith((".", ":", "?")), first


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_every_public_function_and_class_is_described(module: Path) -> None:
    if "migrations" in name(module):
        return  # upgrade and downgrade are Alembic's words
    nameless = [
        at
        for at, definition in public(tree(module).body)
        if ast.get_docstring(definition) is None and not has_help(definition)
    ]

    assert nameless == []


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_no_module_has_grown_out_of_its_room(module: Path) -> None:
    assert len(module.read_text("utf-8").splitlines()) <= LONGEST


def test_nothing_bears_a_name_that_names_nothing() -> None:
    files = {name(module): module.stem.split("_") for module in MODULES}
    classes = {
        f"{name(module)}: {node.name}": re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", node.name)
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
    }

    assert [
        bearer
        for bearer, words in (files | classes).items()
        if NAMES_OF_NOTHING & {word.lower() for word in words}
    ] == []


def test_no_relationship_loads_rows_behind_the_gate() -> None:
    lazy = {
        f"{mapper.class_.__name__}.{relationship.key}": relationship.lazy
        for mapper in Record.registry.mappers
        for relationship in mapper.relationships
    }

    assert set(lazy.values()) <= {"raise"}


def test_an_alias_that_many_threads_have_is_made_for_them() -> None:
    """By `rows.shared`: see there."""
    assert [
        name(module)
        for module in MODULES
        for statement in tree(module).body
        if isinstance(statement, ast.Assign) and "aliased(" in ast.unparse(statement.value)
    ] == []


def test_nothing_in_the_house_names_the_place_where_it_was_built() -> None:
    written = [path for root in (*ROOMS, ROOT / "tests") for path in root.rglob("*.py")]
    places = [f"/{place}/" for place in ("work", "tmp/bash_jobs")]

    assert [
        name(path) for path in written if any(one in path.read_text("utf-8") for one in places)
    ] == []


def test_the_floors_import_downwards_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
