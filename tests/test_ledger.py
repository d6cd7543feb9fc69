"""The formula ledger: every numbered equation has a source, a cell and a test."""

import ast
from pathlib import Path

import ledger

ROOT = Path(__file__).parents[1]


def all_tests() -> set[str]:
    return {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def code_cells() -> dict[str, set[str]]:
    return {
        path.stem[:2]: {c["id"] for c in ledger.cells(path) if c["cell_type"] == "code"}
        for path in (ROOT / "chapters").glob("[0-9]*.ipynb")
    }


def test_every_equation_is_accounted_for():
    found = ledger.all_equations()
    assert len(found) > 50
    assert ledger.faults(found, ledger.entries(), code_cells(), all_tests()) == [], (
        "book/ledger.json; after reading what changed: python book/_ext/ledger.py"
    )


def test_what_the_ledger_lacks_is_told():
    one = ledger.Equation("05", "2", "x = y")
    entry = {"source": "us", "cell": "c", "test": "t", "formula": one.fingerprint}
    code, tests = {"05": {"c"}}, {"t"}

    def told(**changes):
        known = {"05": {"2": entry | changes}}
        return ledger.faults([one], known, code, tests)

    assert told() == []
    assert "no test ''" in told(test="")[0]
    assert "no code cell 'gone'" in told(cell="gone")[0]
    assert "has changed" in told(formula="")[0]
    assert "no source" in told(source="")[0]
    assert "not in the ledger" in ledger.faults([one], {}, code, tests)[0]
    assert ledger.faults([], {"05": {"2": entry}}, code, tests) == [
        "no equation 05 (2)"
    ]


def test_fingerprint_sees_the_formula_and_not_its_spacing():
    one = ledger.Equation("05", "2", "x = y").fingerprint
    assert one == ledger.Equation("05", "2", "x=\n y").fingerprint
    assert one != ledger.Equation("05", "2", "x = -y").fingerprint
