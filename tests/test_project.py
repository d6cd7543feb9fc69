"""The project: who imports whom, what notebooks may hold, what is not committed."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from conftest import SLOW

import first_cell
import library_map

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ddpm_core"
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))


# Layers -----------------------------------------------------------------------------

BARE = {"torch", "torchvision", "numpy", "PIL", "accelerate", "safetensors"}
BARE |= {"jaxtyping", "tqdm", "typer"}
ALSO = {
    "display": {"ipywidgets", "matplotlib", "traitlets"},  # ipywidgets brings traitlets
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The room or the module of the core to which a file belongs."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, *, everywhere: bool) -> set[str]:
    """The names that a module imports, dotted: as it loads, or in its functions too."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute in this library"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


ENTRIES = {"cli", "__main__"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_imports_only_what_the_map_allows(path):
    name = name_of(path)
    own = {n for n in imported(path, everywhere=True) if n.startswith("ddpm_core.")}
    uses = {n.split(".")[1] for n in own} - {name}
    if name == "workshop":
        assert not uses & ENTRIES
    elif name in ENTRIES:
        assert uses == {"workshop"}
    elif name != "__init__":
        assert uses <= library_map.allowed()[name]


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor a docstring nor a comment alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = set()
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            documented |= set(range(node.lineno, node.end_lineno + 1))
    lines = path.read_text(encoding="utf-8").splitlines()
    return sum(
        bool(line.strip()) and not line.strip().startswith("#")
        for number, line in enumerate(lines, 1)
        if number not in documented
    )


def test_the_core_is_small():
    core = [path for path in PACKAGE.glob("*.py") if name_of(path) not in ENTRIES]
    assert sum(map(code_lines, core)) <= 2_900


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_loads_on_a_bare_training_machine(path):
    packages = {n.split(".")[0] for n in imported(path, everywhere=False)}
    allowed = BARE | ALSO.get(name_of(path), set()) | {"ddpm_core"}
    assert packages - sys.stdlib_module_names <= allowed


def test_the_map_names_every_module():
    found = {name_of(path) for path in modules()} - {"__init__"}
    assert found == library_map.allowed().keys() | {"workshop"} | ENTRIES
    assert "```{library-map}" in (ROOT / "book" / "contributing.md").read_text()


TEXT_CALLS = {"open", "read_text", "write_text"}


def without_encoding(path: Path) -> list[int]:
    """The lines that read or write text in the encoding of the machine."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg for keyword in node.keywords}
        values = [*node.args, *(k.value for k in node.keywords)]
        modes = [getattr(value, "value", "") for value in values]
        binary = any(
            isinstance(m, str) and re.fullmatch(r"[rwax]b\+?", m) for m in modes
        )
        own = isinstance(node.func, ast.Attribute) and name == "open"
        files = not own or any(m in ("r", "w", "a", "x") for m in modes)
        if name in TEXT_CALLS and files and not binary and "encoding" not in given:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "path",
    [*modules(), *sorted((ROOT / "book").rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_text_is_utf8_on_every_machine(path):
    assert without_encoding(path) == []


# Chapters ---------------------------------------------------------------------------

ONLY_IN_THE_BOOK = {
    "directive": re.compile(r"^\s*(`{3,}|:{3,})\s*\{", re.MULTILINE),
    "role": re.compile(r"(?<!`)\{[\w:-]+\}`[^`]+`"),
    "label": re.compile(r"^\([\w:-]+\)=\s*$", re.MULTILINE),
    "substitution": re.compile(r"\{\{.*?\}\}"),
    "comment": re.compile(r"^% ", re.MULTILINE),
}

chapters = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


def faults_of_markdown(text: str) -> list[str]:
    return [what for what, pattern in ONLY_IN_THE_BOOK.items() if pattern.search(text)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```{note}\nRead.\n```", "directive"),
        (":::{tip}\nRead.\n:::", "directive"),
        ("see {eq}`loss`", "role"),
        ("(sec:loss)=\n# Loss", "label"),
        ("T = {{ T }}", "substitution"),
        ("$x_{t}$ and ```python\n{1}\n```, `{a}` (a)=b", None),
    ],
)
def test_what_only_the_book_understands_is_found(text, fault):
    assert faults_of_markdown(text) == ([fault] if fault else [])


@chapters
def test_chapter_is_plain_markdown(path):
    for cell in cells(path, "markdown"):
        assert not faults_of_markdown(text_of(cell)), text_of(cell)


@chapters
def test_chapter_ran_from_top_to_bottom(path):
    code = [c for c in cells(path, "code") if text_of(c).strip()]
    ran = [c["execution_count"] for c in code if not first_cell.is_first(c)]
    assert ran == list(range(1, len(ran) + 1))


@chapters
def test_chapter_begins_with_the_common_cell_and_folds_its_solutions(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert first_cell.with_first_cell(notebook, first_cell.address()) == notebook


QUESTION = re.compile(  # with empty lines, so that the answer is read as Markdown
    r"^\*\*(\d)\.\*\* .+\n\n<details>\n<summary>Answer</summary>\n\n.+\n\n</details>$",
    re.MULTILINE,
)


@chapters
def test_chapter_asks_three_questions_before_its_exercises(path):
    texts = [text_of(cell) for cell in cells(path, "markdown")]
    (at,) = [i for i, text in enumerate(texts) if text.startswith("## Three questions")]
    assert QUESTION.findall(texts[at]) == ["1", "2", "3"]
    exercises = [i for i, text in enumerate(texts) if "## Exercises\n" in text]
    assert all(texts[i].startswith("## Exercises\n") for i in exercises)
    assert exercises in ([], [at + 1])


@chapters
def test_chapter_stores_no_error_and_no_warning(path):
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", text_of(cell)
            assert output.get("name") != "stderr", "".join(output["text"])


def alt_texts(cell: dict) -> list[str]:
    """The alternative texts of a cell's figures, in its metadata or its outputs."""
    own = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
    data = [o for o in cell["outputs"] if "image/png" in o.get("data", {})]
    return [own or o["metadata"].get("image/png", {}).get("alt", "") for o in data]


@chapters
def test_chapter_says_in_words_what_each_figure_shows(path):
    for cell in cells(path, "code"):
        assert all(len(text) > 20 for text in alt_texts(cell)), text_of(cell)


CAPTION = re.compile(r"^\*\*Figure (\w+)\.(\d+)\.\*\* \S.*", re.MULTILINE)
FIGURES = {"image/png", "application/vnd.jupyter.widget-view+json"}


@chapters
def test_captions_are_numbered_and_stand_under_their_figures(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [text_of(c) if c["cell_type"] == "markdown" else "" for c in notebook]
    found = [match for text in texts for match in CAPTION.findall(text)]
    letters = {"bug_clinic": "C", "fine_tuning": "F"}
    chapter = letters.get(path.stem) or str(int(path.stem[:2]))
    assert found == [(chapter, str(n)) for n in range(1, len(found) + 1)]
    kinds = [
        {k for o in c.get("outputs", []) for k in o.get("data", {})} for c in notebook
    ]
    after = [texts[i + 1] for i, kind in enumerate(kinds) if kind & FIGURES]
    assert not found or all(CAPTION.match(text) for text in after)


@chapters
def test_chapter_is_small_and_free_of_timings(path):
    assert path.stat().st_size < 2_000_000
    assert not any("execution" in c["metadata"] for c in cells(path, "code"))


@chapters
def test_chapter_is_in_the_book(path):
    assert f"file: chapters/{path.stem}\n" in (ROOT / "_toc.yml").read_text()
    assert f"../chapters/{path.name}" in (ROOT / "book" / "intro.md").read_text()


# The tests --------------------------------------------------------------------------


def test_what_is_called_slow_is_there():
    assert [path for path in SLOW if not (ROOT / path).exists()] == []


# What is committed ------------------------------------------------------------------


def test_no_file_names_a_path_of_one_machine_or_a_registry(committed):
    folders = "|".join(["root", "home", "Users", "work", "mnt"])
    hosts = "|".join(["pypi", "pythonhosted", "npmjs"])
    foreign = re.compile(rf"(?<![\w.:/-])/(?:{folders})/\w|\b(?:{hosts})\.org".encode())
    found = {p.name: foreign.findall(p.read_bytes()) for p in committed}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_no_committed_file_is_large(committed):
    assert [p.name for p in committed if p.stat().st_size > 6_500_000] == []


def test_constraints_pin_each_package_once_and_for_every_machine():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", pin) for pin in pins)
    names = [pin.split("==")[0].lower() for pin in pins]
    assert len(names) == len(set(names))
    assert not [name for name in names if re.match("nvidia|cuda|triton", name)]
