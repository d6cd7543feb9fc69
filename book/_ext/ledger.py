"""The formula ledger: every numbered equation, its source, its cell and its test.

    python book/_ext/ledger.py

The equations are read from the notebooks, where `\\tag{2}` numbers them. What is known
of each stands in book/ledger.json, by chapter and number: the source; the cell that
computes it, by its id; the test that proves it; and a fingerprint of the formula as it
was when the three were chosen. The directive `formula-ledger` prints all of it. Run as
a script, this file stores the fingerprints anew, once you have read what has changed.
"""

import json
import re
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LEDGER = ROOT / "book" / "ledger.json"
DISPLAY = re.compile(r"\$\$((?:(?!\$\$).)+?)\$\$", re.DOTALL)
TAG = re.compile(r"\s*\\tag\{(\w+)\}")


class Equation(NamedTuple):
    """A numbered equation of a chapter: '05', '2', and its LaTeX without the number."""

    chapter: str
    number: str
    latex: str

    @property
    def fingerprint(self) -> str:
        """What changes with the formula, but not with its spacing."""
        return f"{zlib.crc32(''.join(self.latex.split()).encode()):08x}"


def cells(notebook: Path) -> list[dict]:
    """Return the cells of a notebook."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def equations(notebook: Path) -> list[Equation]:
    """Return the numbered equations of a chapter's notebook, in order."""
    texts = ["".join(c["source"]) for c in cells(notebook) if c["cell_type"] != "code"]
    displays = [latex for text in texts for latex in DISPLAY.findall(text)]
    return [
        Equation(notebook.stem[:2], tag[1], TAG.sub("", latex).strip())
        for latex in displays
        if (tag := TAG.search(latex))
    ]


def all_equations(root: Path = ROOT) -> list[Equation]:
    """Return the numbered equations of all chapters."""
    notebooks = sorted((root / "chapters").glob("[0-9]*.ipynb"))
    return [equation for path in notebooks for equation in equations(path)]


def entries() -> dict[str, dict[str, dict[str, str]]]:
    """Return what is known of each equation: entries()["05"]["2"]["source"]."""
    return json.loads(LEDGER.read_text(encoding="utf-8"))


def faults(
    found: list[Equation], known: dict, code: dict, tests: set[str]
) -> list[str]:
    """Say what the ledger lacks or has too much; [] for a complete one.

    `code`: the ids of each chapter's code cells. `tests`: `file.py::name` of each test.
    """
    wrong = []
    for equation in found:
        where = f"chapter {equation.chapter}, equation ({equation.number})"
        entry = known.get(equation.chapter, {}).get(equation.number)
        if entry is None:
            wrong.append(f"{where} is not in the ledger")
            continue
        if entry.get("formula") != equation.fingerprint:
            wrong.append(f"{where} has changed: are its cell and test still the right?")
        if entry.get("cell") not in code[equation.chapter]:
            wrong.append(f"{where}: there is no code cell {entry.get('cell')!r}")
        if entry.get("test") not in tests:
            wrong.append(f"{where}: there is no test {entry.get('test')!r}")
        if not entry.get("source"):
            wrong.append(f"{where} has no source")
    there = {(equation.chapter, equation.number) for equation in found}
    named = {(chapter, number) for chapter, own in known.items() for number in own}
    return wrong + [
        f"no equation {chapter} ({n})" for chapter, n in sorted(named - there)
    ]


def store_fingerprints() -> None:
    """Write the ledger with the fingerprints of the formulas as they are now."""
    known = entries()
    for equation in all_equations():
        if entry := known.get(equation.chapter, {}).get(equation.number):
            entry["formula"] = equation.fingerprint
    chapters = []
    for chapter, own in known.items():
        rows = [
            f"    {json.dumps(number)}: {json.dumps(entry, ensure_ascii=False)}"
            for number, entry in own.items()
        ]
        chapters.append(f'  "{chapter}": {{\n' + ",\n".join(rows) + "\n  }")
    text = "{\n" + ",\n".join(chapters) + "\n}\n"
    LEDGER.write_text(text, encoding="utf-8")


# The page -----------------------------------------------------------------------------


def setup(app) -> dict:
    """Register the directive with Sphinx."""
    import paper_places
    from docutils import nodes
    from repository import source_url
    from sphinx.util.docutils import SphinxDirective

    def formula(equation: Equation) -> nodes.math_block:
        number = f"{int(equation.chapter)}.{equation.number}"
        latex = f"{equation.latex} \\tag{{{number}}}"
        options = {"nowrap": False, "number": None, "label": None}
        return nodes.math_block(latex, latex, **options)

    def link(text: str, uri: str) -> nodes.Node:
        plain = nodes.literal("", text)
        if not uri:
            return plain
        return nodes.reference("", "", plain, refuri=uri)

    def account(equation: Equation, entry: dict, ran: int | None) -> nodes.paragraph:
        file, name = entry["test"].split("::")
        words = name.removeprefix("test_").replace("_", " ")
        source = f"From {entry['source']} {paper_places.mark(entry['source'])}"
        return nodes.paragraph(
            "", f"{source.rstrip()}. Computed in cell [{ran}]. Test: ",
            link(f"tests/{file}", source_url(app, f"tests/{file}")),
            nodes.Text(f", {words}."),
        )  # fmt: skip

    class FormulaLedger(SphinxDirective):
        """`{formula-ledger}`: the equations of all chapters, with their accounts."""

        def run(self) -> list[nodes.Node]:
            for path in (LEDGER, paper_places.PLACES):
                self.env.note_dependency(str(path))
            known, parts = entries(), []
            for notebook in sorted(Path(self.env.srcdir).glob("chapters/[0-9]*.ipynb")):
                self.env.note_dependency(str(notebook))
                own = equations(notebook)
                if own:
                    parts.append(self.chapter(notebook, own, known))
            return [self.counts(known), *parts]

        def counts(self, known: dict) -> nodes.paragraph:
            sources = [e["source"] for own in known.values() for e in own.values()]
            own = sources.count("this book")
            marks = [paper_places.mark(source) for source in sources]
            return nodes.paragraph(
                "", f"{len(sources)} equations: {own} derived in this book, "
                f"{len(sources) - own} from other sources. For {sum(map(bool, marks))} "
                f"of these a place in a paper is given: {marks.count('✓')} were seen "
                f"there (✓), {marks.count('‡')} are quoted so by others (‡), and "
                f"{marks.count('†')} were not seen (†). Each has a cell and a test.",
            )  # fmt: skip

        def chapter(self, notebook: Path, own: list, known: dict) -> nodes.section:
            stem = notebook.stem
            heading = "".join(cells(notebook)[0]["source"]).splitlines()[0].lstrip("# ")
            title = f"Chapter {stem[:2]}: {heading}"
            section = nodes.section(ids=[f"formulas-{stem[:2]}"])
            section += nodes.title("", title)
            ran = {c.get("id"): c.get("execution_count") for c in cells(notebook)}
            for equation in own:
                entry = known[equation.chapter][equation.number]
                section += formula(equation)
                section += account(equation, entry, ran.get(entry["cell"]))
            return section

    app.add_directive("formula-ledger", FormulaLedger)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    store_fingerprints()
    sys.stdout.write(f"{len(all_equations())} equations\n")
